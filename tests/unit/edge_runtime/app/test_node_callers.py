"""The node's process: who is refused is noted, by TLS and in clear text."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from simulators.certificates import HOST, Authority
from simulators.waiting import wait_until

from dicom_node.admission import Call, RefusalReason
from dicom_node.errors import (
    AssociationRejectedError,
    DicomNodeError,
    HandshakeError,
    HandshakeFault,
)
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.scu import verify_peer
from edge_runtime.app import node
from edge_runtime.app.courier import peer_address
from edge_runtime.clock import SystemClock
from edge_runtime.config.loading import parse_settings
from edge_runtime.config.peers import PeerSettings
from edge_runtime.config.settings import Settings
from edge_runtime.process import Pulse, database_path
from edge_runtime.store.callers import CallerView, list_callers
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role
from edge_runtime.supervisor.notify import Notifier
from tools.demo.ports import free_port

_TIMEOUTS = RequestorTimeouts(connect_s=5, association_s=5, answer_s=10)
RunNode = Callable[..., contextlib.AbstractContextManager[Settings]]


@pytest.fixture
def run_node(tmp_path: Path) -> RunNode:
    """Run the node's main in a thread; keyword arguments are keys of ``node``."""

    @contextlib.contextmanager
    def run(**keys: object) -> Iterator[Settings]:
        settings = parse_settings(
            {
                "device": {"state_dir": str(tmp_path), "stop_grace_s": 1},
                "node": {"bind": HOST, "port": free_port(), "min_free_bytes": 0, **keys},
            },
            {},
        )
        stop, codes = threading.Event(), []
        pulse = Pulse(Role.NODE, database_path(settings), SystemClock(), Notifier(), interval_s=0.2)
        thread = threading.Thread(
            target=lambda: codes.append(node.run(settings, stop, pulse)), name="node-main"
        )
        thread.start()
        try:
            wait_until(lambda: _listens(settings.node.port))
            yield settings
        finally:
            stop.set()
            thread.join(30)
            pulse.close()
        assert codes == [0]

    return run


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def _echo(peer: PeerAddress, calling: str) -> None:
    verify_peer(peer, calling_ae_title=calling, timeouts=_TIMEOUTS)


def _noted(settings: Settings) -> tuple[CallerView, ...]:
    with contextlib.closing(connect(database_path(settings))) as connection:
        return list_callers(connection)


def test_a_learning_node_notes_unknown_callers_and_lets_none_in(run_node: RunNode) -> None:
    with run_node(learning=True) as settings:
        peer = PeerAddress(ae_title="EDGETRIAGE", host=HOST, port=settings.node.port)
        for _ in range(3):
            with pytest.raises(AssociationRejectedError):
                _echo(peer, "CT01")
        wait_until(lambda: sum(view.calls for view in _noted(settings)) == 3)
        (view,) = _noted(settings)
        assert view.call == Call(
            calling_ae_title="CT01", called_ae_title="EDGETRIAGE", address=HOST
        )
        assert view.reason is RefusalReason.CALLING_AE_TITLE


def test_what_was_noted_last_is_written_when_the_node_stops(run_node: RunNode) -> None:
    with run_node(learning=True, callers=[{"ae_title": "CT01"}]) as settings:
        peer = PeerAddress(ae_title="EDGETRIAGE", host=HOST, port=settings.node.port)
        _echo(peer, "CT01")
        for title in ("X1", "X2"):
            with pytest.raises(AssociationRejectedError):
                _echo(peer, title)
    assert {view.call.calling_ae_title for view in _noted(settings)} == {"X1", "X2"}


@pytest.mark.parametrize("callers", [[], [{"ae_title": "CT01"}]])
def test_a_node_that_is_not_learning_notes_nobody(
    run_node: RunNode, callers: list[Mapping[str, Any]]
) -> None:
    with run_node(callers=callers) as settings:
        peer = PeerAddress(ae_title="WRONG", host=HOST, port=settings.node.port)
        with pytest.raises(AssociationRejectedError):
            _echo(peer, "X1")
    assert _noted(settings) == ()


def test_the_settings_open_a_port_for_tls_and_call_a_peer_by_it(
    run_node: RunNode, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    identity = authority.issue("node")
    tls = {
        "port": free_port(),
        "certificate_file": str(identity.certificate_file),
        "key_file": str(identity.key_file),
        "ca_file": str(authority.ca_file),
    }
    with run_node(tls=tls, learning=True, callers=[{"ae_title": "CT01"}]) as settings:
        assert settings.node.tls is not None
        ourselves = PeerSettings(
            ae_title="EDGETRIAGE", host=HOST, port=settings.node.tls.port, tls=True
        )
        peer = peer_address(ourselves, settings.node.tls)
        _echo(peer, "CT01")
        clear = PeerAddress(ae_title="EDGETRIAGE", host=HOST, port=settings.node.port)
        with pytest.raises(AssociationRejectedError):
            _echo(clear, "CT01")
        with pytest.raises(HandshakeError):
            _echo(peer_address(ourselves.model_copy(update={"tls_name": "x.y"}), None), "CT01")
    assert {view.reason for view in _noted(settings)} == {
        RefusalReason.CLEAR_TEXT,
        HandshakeFault.REFUSED_BY_PEER,  # it did not trust our certificate
    }


def test_a_peer_is_called_as_its_settings_say() -> None:
    settings = parse_settings(
        {"node": {"tls": {"certificate_file": "c", "key_file": "k", "ca_file": "a"}}}, {}
    )
    plain = PeerSettings(ae_title="PACS", host="h", port=104)
    assert peer_address(plain, settings.node.tls).tls is None
    encrypted = PeerSettings(
        ae_title="PACS", host="h", port=2762, tls=True, ca_file=Path("own"), tls_name="pacs.x"
    )
    found = peer_address(encrypted, settings.node.tls).tls
    assert found is not None
    assert (found.ca_file, found.certificate_file, found.key_file, found.server_name) == (
        Path("own"),
        Path("c"),
        Path("k"),
        "pacs.x",
    )
    alone = peer_address(PeerSettings(ae_title="P", host="h", port=1, tls=True), None).tls
    assert alone is not None
    assert (alone.ca_file, alone.certificate_file) == (None, None)


def test_a_node_whose_certificate_is_missing_says_so_at_the_start(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.pem")
    settings = parse_settings(
        {
            "device": {"state_dir": str(tmp_path)},
            "node": {
                "bind": HOST,
                "port": free_port(),
                "tls": {"certificate_file": gone, "key_file": gone, "ca_file": gone},
            },
        },
        {},
    )
    pulse = Pulse(Role.NODE, database_path(settings), SystemClock(), Notifier(), interval_s=1)
    with (
        contextlib.closing(pulse),
        pytest.raises(DicomNodeError, match=r"gone\.pem cannot be read"),
    ):
        node.run(settings, threading.Event(), pulse)
