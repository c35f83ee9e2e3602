from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import
from simulators.certificates import HOST, Authority
from simulators.memory_inbox import MemoryInbox

from dicom_node.archive import FolderArchive
from dicom_node.scp import NodeSettings, StorageNode, TlsPort
from dicom_node.tls import ServerCertificates
from tools.doctor.checks_pacs import check_forward_pacs, check_report_pacs
from tools.doctor.findings import Check, Context, Status
from tools.doctor.running import run_checks

MakeContext = Callable[..., Context]


def _peer(port: int, ae_title: str = "PACS") -> dict[str, object]:
    peer = {"peer": {"ae_title": ae_title, "host": "127.0.0.1", "port": port}}
    return {"structured_report": peer, "forward": peer}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_pacs_that_is_not_set_is_fine(make_context: MakeContext) -> None:
    assert check_report_pacs(make_context()).status is Status.OK
    assert check_forward_pacs(make_context()).status is Status.OK


def test_a_pacs_that_answers_is_fine(make_context: MakeContext, tmp_path: Path) -> None:
    with FolderArchive(tmp_path, ae_title="PACS") as pacs:
        context = make_context(outputs=_peer(pacs.port))
        assert check_report_pacs(context).status is Status.OK
        assert check_forward_pacs(context).status is Status.OK


def test_a_pacs_that_is_down_fails_and_the_key_is_named(
    make_context: MakeContext, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    context = make_context(outputs=_peer(port))
    for check, key in (
        (check_report_pacs, "outputs.structured_report.peer"),
        (check_forward_pacs, "outputs.forward.peer"),
    ):
        found = check(context)
        assert found.status is Status.FAILED
        assert "does not answer" in found.found
        assert f"{key}.port" in (found.remedy or "")


def test_a_pacs_with_another_title_rejects_with_a_reason(
    make_context: MakeContext, tmp_path: Path
) -> None:
    with FolderArchive(tmp_path, ae_title="OTHER") as pacs:
        found = check_report_pacs(make_context(outputs=_peer(pacs.port)))
    assert found.status is Status.FAILED
    assert "Called AE title not recognised" in found.found
    assert "outputs.structured_report.peer.ae_title" in (found.remedy or "")


@contextlib.contextmanager
def small_pacs(*, callers: Sequence[str] = ()) -> Iterator[int]:
    """An SCP that answers C-ECHO and nothing else; yields its port."""
    ae = AE("PACS")
    ae.add_supported_context(Verification)
    ae.require_calling_aet = list(callers)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


def test_a_pacs_that_does_not_know_us_is_told_our_title(make_context: MakeContext) -> None:
    with small_pacs(callers=["SOMEONE"]) as port:
        found = check_forward_pacs(make_context(outputs=_peer(port)))
    assert found.status is Status.FAILED
    assert "Calling AE title not recognised" in found.found
    assert "EDGETRIAGE" in (found.remedy or "")


def test_a_pacs_that_takes_no_structured_reports_fails(make_context: MakeContext) -> None:
    with small_pacs() as port:
        context = make_context(outputs=_peer(port))
        reports, forward = check_report_pacs(context), check_forward_pacs(context)
    assert forward.status is Status.OK
    assert reports.status is Status.FAILED
    assert "1.2.840.10008.5.1.4.1.1.88.34" in (reports.remedy or "")


def test_a_peer_that_accepts_connections_in_silence_fails_within_its_time(
    make_context: MakeContext, listener: socket.socket
) -> None:
    context = make_context(outputs=_peer(listener.getsockname()[1]))
    (answer,) = run_checks([Check("pacs", check_report_pacs, 5.0)], context)
    assert answer.finding.status is Status.FAILED
    assert "does not answer" in answer.finding.found


class TlsPacs:
    """A PACS with a certificate, and a device that has one of the same authority."""

    def __init__(self, folder: Path, make_context: MakeContext) -> None:
        self.authority = Authority(folder)
        self.device = self.authority.issue("device")
        self._folder = folder
        self._make_context = make_context

    @contextlib.contextmanager
    def listening(self) -> Iterator[StorageNode]:
        pacs = self.authority.issue("pacs")
        certificates = ServerCertificates(
            certificate_file=pacs.certificate_file,
            key_file=pacs.key_file,
            ca_file=self.authority.ca_file,
        )
        settings = NodeSettings(
            ae_title="PACS",
            bind_address=HOST,
            port=0,
            tls=TlsPort(certificates=certificates, port=0),
            admit_unknown_peers=True,
        )
        with StorageNode(
            settings, spool_folder=self._folder / "spool", inbox=MemoryInbox()
        ) as node:
            yield node

    def context(self, **peer: object) -> Context:
        given = {"ae_title": "PACS", "host": HOST, "tls": True, **peer}
        tls = {
            "certificate_file": str(self.device.certificate_file),
            "key_file": str(self.device.key_file),
            "ca_file": str(self.authority.ca_file),
        }
        return self._make_context(node={"tls": tls}, outputs={"forward": {"peer": given}})


@pytest.fixture
def tls_pacs(tmp_path: Path, make_context: MakeContext) -> TlsPacs:
    return TlsPacs(tmp_path, make_context)


def test_a_pacs_that_answers_by_tls_is_fine(tls_pacs: TlsPacs) -> None:
    with tls_pacs.listening() as pacs:
        assert check_forward_pacs(tls_pacs.context(port=pacs.tls_port)).status is Status.OK


def test_what_keeps_tls_from_working_is_told_with_the_key(
    tls_pacs: TlsPacs, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    with tls_pacs.listening() as pacs:
        for peer, key in (
            ({"tls_name": "pacs.example.org"}, "forward.peer.tls_name"),
            ({"ca_file": str(other.ca_file)}, "forward.peer.ca_file"),
            ({"port": pacs.port}, "TLS port of the PACS"),
        ):
            found = check_forward_pacs(tls_pacs.context(**{"port": pacs.tls_port, **peer}))
            assert found.status is Status.FAILED
            assert key in (found.remedy or "")
        tls_pacs.device = other.issue("stranger")
        found = check_forward_pacs(tls_pacs.context(port=pacs.tls_port))
        assert "trust the authority of this device's certificate" in (found.remedy or "")
        tls_pacs.device.key_file.unlink()
        found = check_forward_pacs(tls_pacs.context(port=pacs.tls_port))
        assert "own certificates cannot be used" in found.found
