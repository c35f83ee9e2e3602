"""``edge-triage callers`` on what a learning node has noted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulators.hand_clock import HandClock
from typer.testing import CliRunner

from dicom_node.admission import Admitted, Call, Reason, RefusalReason, decide, plain_address
from dicom_node.errors import HandshakeFault
from edge_runtime.app.node import node_settings
from edge_runtime.config.loading import load_settings
from edge_runtime.store.callers import CallerNotes, CallerView
from edge_runtime.store.database import connect
from tools.callers import Advisor, callers
from tools.cli import app as edge_triage

app = typer.Typer()
app.command()(callers)

_UNKNOWN = RefusalReason.CALLING_AE_TITLE
_FINGERPRINT, _OTHER = "ab" * 32, "cd" * 32
_CT = Call(calling_ae_title="CT01", called_ae_title="EDGETRIAGE", address="192.0.2.10")
_TLS_CT = Call(
    calling_ae_title="CT01",
    called_ae_title="EDGETRIAGE",
    address="192.0.2.10",
    is_encrypted=True,
    certificate_sha256=_FINGERPRINT,
)
_WITH_TLS = '\n[node.tls]\ncertificate_file = "a"\nkey_file = "b"\nca_file = "c"\n'


class Device:
    """A settings file and a database, as a device leaves them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.config = folder / "edge-triage.toml"

    def configure(self, node: str = "learning = true", *, head: str = "") -> None:
        self.config.write_text(
            f'[device]\nstate_dir = "{self._folder}"\n[node]\n{head}\n{node}\n', encoding="utf-8"
        )

    def note(self, *calls: tuple[Call, Reason]) -> None:
        with contextlib.closing(connect(self._folder / "triage.db")) as connection:
            notes = CallerNotes(connection, HandClock())
            for call, reason in calls:
                notes.note(call, reason)
            notes.flush()

    def admits(self, call: Call) -> bool:
        policy = node_settings(load_settings(self.config, {})).admission
        return isinstance(decide(policy, call), Admitted)

    def append(self, toml: str) -> None:
        with self.config.open("a", encoding="utf-8") as file:
            file.write(f"\n{toml}\n")

    def report(self) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["--config", str(self.config), "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def only(self) -> dict[str, Any]:
        """The one caller in the report."""
        (caller,) = self.report()["callers"]
        assert isinstance(caller, dict)
        return caller


@pytest.fixture
def device(tmp_path: Path) -> Device:
    found = Device(tmp_path)
    found.configure()
    return found


def test_the_line_of_an_unknown_caller_admits_it(device: Device) -> None:
    device.note((_CT, _UNKNOWN))
    assert not device.admits(_CT)
    toml = device.only()["toml"]
    assert toml == '[[node.callers]]\nae_title = "CT01"\naddress = "192.0.2.10"'
    device.append(toml)
    assert device.admits(_CT)
    assert device.only()["toml"] is None
    assert "restart" in device.only()["advice"]


def test_where_callers_stand_in_a_list_the_line_is_an_item_of_it(device: Device) -> None:
    device.configure('callers = [\n{ ae_title = "MR" },\n]')
    device.note((_CT, _UNKNOWN))
    toml = device.only()["toml"]
    assert toml == '{ ae_title = "CT01", address = "192.0.2.10" },'
    device.configure(f'callers = [\n{{ ae_title = "MR" }},\n{toml}\n]')
    assert device.admits(_CT)


@pytest.mark.parametrize(
    ("entry", "call", "reason", "expected"),
    [
        ("", _CT, _UNKNOWN, "clear_text = true"),
        ("", _TLS_CT, _UNKNOWN, 'address = "192.0.2.10"'),
        ('ae_title = "CT01"', _CT, RefusalReason.CLEAR_TEXT, "clear_text = true"),
        ('ae_title = "CT01"\naddress = "192.0.2.99"', _TLS_CT, RefusalReason.ADDRESS, "192.0.2.10"),
        (
            f'ae_title = "CT01"\ncertificate_sha256 = "{_OTHER}"',
            _TLS_CT,
            RefusalReason.CERTIFICATE,
            f'certificate_sha256 = "{_FINGERPRINT}"',
        ),
    ],
)
def test_the_line_fits_the_reason_where_the_node_has_a_certificate(
    device: Device, entry: str, call: Call, reason: RefusalReason, expected: str
) -> None:
    listed = f"\n[[node.callers]]\n{entry}\n" if entry else ""
    device.configure(f"learning = true\n{_WITH_TLS}{listed}")
    device.note((call, reason))
    toml = device.only()["toml"]
    assert expected in toml
    assert ("clear_text" in toml) == (not call.is_encrypted)
    device.append(toml)
    assert device.admits(call)


def test_a_wrong_called_title_is_corrected_on_the_scanner(device: Device) -> None:
    wrong = Call(calling_ae_title="CT01", called_ae_title="TRIAGE", address="192.0.2.10")
    device.note((wrong, RefusalReason.CALLED_AE_TITLE))
    caller = device.only()
    assert caller["toml"] is None
    assert "'TRIAGE'" in caller["advice"]
    assert "'EDGETRIAGE' (node.ae_title)" in caller["advice"]


def test_a_call_that_failed_at_tls_says_what_to_do(device: Device) -> None:
    nobody = Call(calling_ae_title="", called_ae_title="", address="192.0.2.10")
    device.note((nobody, HandshakeFault.NO_CERTIFICATE))
    caller = device.only()
    assert caller["toml"] is None
    assert "it shows no certificate: give it one" in caller["advice"]
    shown = CliRunner().invoke(app, ["--config", str(device.config)])
    assert "somebody from 192.0.2.10" in shown.stdout


def test_a_clear_text_caller_of_a_node_that_has_no_such_port_gets_no_line(device: Device) -> None:
    device.configure(f"learning = true\n{_WITH_TLS}only = true\n")
    device.note((_CT, _UNKNOWN))
    caller = device.only()
    assert caller["toml"] is None
    assert "No line can admit it as it is" in caller["advice"]


@pytest.mark.parametrize(
    "title", ["\x1b[2J\x1b]0;owned\x07", "A\nB", 'x"\nmay_store = true', "a\\b", "\x7f"]
)
def test_what_a_hostile_title_holds_reaches_neither_terminal_nor_toml(
    device: Device, title: str
) -> None:
    device.note(
        (
            Call(calling_ae_title=title[:16], called_ae_title=title[:16], address="192.0.2.1"),
            RefusalReason.CALLED_AE_TITLE,
        ),
        (
            Call(calling_ae_title=title[:16], called_ae_title="EDGETRIAGE", address="192.0.2.1"),
            _UNKNOWN,
        ),
    )
    shown = CliRunner().invoke(app, ["--config", str(device.config)])
    assert shown.exit_code == 0
    assert all(sign.isprintable() or sign == "\n" for sign in shown.stdout)
    assert [caller["toml"] for caller in device.report()["callers"]] == [None, None]


# PS3.5 6.2: printable ASCII but the backslash, no spaces at the ends.
_TITLES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\"),
    min_size=1,
    max_size=16,
).filter(lambda text: text == text.strip())


@given(title=_TITLES, address=st.ip_addresses().map(str).map(plain_address))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_every_title_that_dicom_allows_gets_a_line_that_admits_it(
    device: Device, title: str, address: str
) -> None:
    device.configure()
    call = Call(calling_ae_title=title, called_ae_title="EDGETRIAGE", address=address)
    view = CallerView(
        call=call, reason=_UNKNOWN, first_seen_wall_us=0, last_seen_wall_us=0, calls=1
    )
    advice = Advisor(device.config).advise(view)
    assert advice.toml is not None
    device.append(advice.toml)
    assert device.admits(call)


@pytest.mark.parametrize(
    ("node", "words"),
    [("learning = true", "Nobody has called"), ("", "set node.learning = true")],
)
def test_an_empty_list_says_why(device: Device, node: str, words: str) -> None:
    device.configure(node)
    device.note()
    shown = CliRunner().invoke(app, ["--config", str(device.config)])
    assert words in shown.stdout


def test_people_see_who_called_when_and_the_line(device: Device) -> None:
    device.note((_CT, _UNKNOWN), (_CT, _UNKNOWN))
    shown = CliRunner().invoke(app, ["--config", str(device.config)]).stdout.splitlines()
    assert shown == [
        "'CT01' from 192.0.2.10, clear text: 2 calls, the last at 2027-01-15T08:00:00Z",
        "  It is not in node.callers.",
        "    [[node.callers]]",
        '    ae_title = "CT01"',
        '    address = "192.0.2.10"',
    ]


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--config"]])
def test_wrong_usage_exits_2(arguments: Sequence[str]) -> None:
    assert CliRunner().invoke(app, list(arguments)).exit_code == 2


def test_a_device_that_never_ran_is_named(device: Device) -> None:
    done = CliRunner().invoke(app, ["--config", str(device.config)])
    assert done.exit_code == 1
    assert "does not exist" in done.stderr


def test_the_command_knows_callers() -> None:
    done = CliRunner().invoke(edge_triage, ["callers", "--help"])
    assert done.exit_code == 0
    assert "node.learning" in done.stdout
