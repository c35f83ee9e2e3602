from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from simulators.hand_clock import HandClock

from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.app.services import errand_couriers, open_services, peer_finder
from edge_runtime.config.peers import PeerSettings
from edge_runtime.config.settings import Settings
from edge_runtime.outputs.retry import RetryRule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPORT_TO = {"ae_title": "SCANNER_SCP", "host": "scanner.example", "port": 4006}


def settings(**node: Any) -> Settings:
    return Settings.model_validate({"node": node})


def address(peer: PeerSettings) -> PeerAddress:
    return PeerAddress(ae_title=peer.ae_title, host=peer.host, port=peer.port)


def where(of: Settings, ae_title: str, ip: str) -> tuple[str, str, int]:
    found = peer_finder(of, address)(ae_title, ip)
    return found.ae_title, found.host, found.port


def test_a_report_goes_back_to_where_the_request_came_from() -> None:
    assert where(settings(), "SCANNER", "192.0.2.7") == ("SCANNER", "192.0.2.7", 104)
    other = settings(commitment={"report_port": 11_113})
    assert where(other, "SCANNER", "192.0.2.7") == ("SCANNER", "192.0.2.7", 11_113)


def test_a_listed_caller_is_told_where_it_listens() -> None:
    listed = settings(callers=[{"ae_title": "SCANNER", "report_to": REPORT_TO}])
    assert where(listed, "SCANNER", "192.0.2.7") == ("SCANNER_SCP", "scanner.example", 4006)
    assert where(listed, "OTHER", "192.0.2.7") == ("OTHER", "192.0.2.7", 104)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("192.0.2.7", ("SCANNER_SCP", "scanner.example", 4006)),
        ("::ffff:192.0.2.7", ("SCANNER_SCP", "scanner.example", 4006)),
        ("198.51.100.7", ("SCANNER", "198.51.100.7", 104)),
    ],
)
def test_two_callers_of_one_title_are_told_apart_by_address(
    ip: str, expected: tuple[str, str, int]
) -> None:
    listed = settings(
        callers=[
            {"ae_title": "SCANNER", "address": "192.0.2.0/24", "report_to": REPORT_TO},
            {"ae_title": "SCANNER", "address": "198.51.100.0/24"},
        ]
    )
    assert where(listed, "SCANNER", ip) == expected


def _couriers(of: Settings) -> set[str]:
    return set(
        errand_couriers(
            of,
            HandClock(),
            make_address=address,
            timeouts=RequestorTimeouts(),
            rule=RetryRule(first_delay_s=1, max_delay_s=1, max_attempts=1),
        )
    )


def test_steps_are_relayed_only_where_an_upstream_is_named() -> None:
    assert _couriers(settings()) == {"commitment_report"}
    upstream = Settings.model_validate({"outputs": {"mpps": {"peer": REPORT_TO}}})
    assert _couriers(upstream) == {"commitment_report", "mpps_relay"}


def test_the_examples_of_the_documentation_are_settings() -> None:
    page = Path(__file__).parents[4] / "docs" / "node" / "commitment-and-mpps.md"
    examples = re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 2
    listed, upstream = (Settings.model_validate(tomllib.loads(text)) for text in examples)
    assert where(listed, "CT01", "192.0.2.10") == ("CT01", "192.0.2.10", 4006)
    assert listed.node.commitment == settings().node.commitment
    assert "mpps_relay" in _couriers(upstream)


def test_the_node_serves_three_requests(tmp_path: Path) -> None:
    given = Settings.model_validate({"device": {"state_dir": tmp_path}})
    with open_services(given, HandClock()) as services:
        names = [event.name for event, _ in services]
    assert names == ["EVT_N_ACTION", "EVT_N_CREATE", "EVT_N_SET"]
