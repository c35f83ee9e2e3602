"""Storage commitment and procedure steps between processes, killed ones too, and with Orthanc."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from simulators.ct_slices import write_ct_slice
from simulators.listening_scanner import (
    CT,
    ListeningScanner,
    call_node,
    change,
    commitment_request,
    creation,
)
from simulators.lone_node import LoneNode
from simulators.orthanc import Orthanc
from simulators.upstream_ris import UpstreamRis
from simulators.waiting import wait_until

from dicom_node.admission import PeerRule
from dicom_node.commitment import commitment_services
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.scp import NodeSettings, StorageNode
from dicom_node.scu import send_files
from edge_runtime.clock import SystemClock
from edge_runtime.outputs.commitment_report import CommitmentReporter
from edge_runtime.outputs.errands import ErrandCourier
from edge_runtime.outputs.retry import RetryRule
from edge_runtime.store.commitments import SqliteCommitments
from edge_runtime.store.database import connect
from edge_runtime.store.inbox import SqliteInbox
from tools.demo.site import AE_TITLE

IMAGES = 20
PAIRS = [(CT, f"1.2.3.1.{number}") for number in range(1, IMAGES + 1)]
TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=15.0, answer_s=15.0)


def _settings(scanner: ListeningScanner, ris: UpstreamRis | None = None) -> str:
    upstream = ""
    if ris is not None:
        upstream = f"""
[outputs.mpps.peer]
ae_title = "RIS"
host = "127.0.0.1"
port = {ris.port}
"""
    return f"""
[node.commitment]
report_port = {scanner.port}

[courier.retry]
first_delay_s = 0.1
max_delay_s = 0.5
{upstream}"""


@contextmanager
def _courier(node: LoneNode) -> Iterator[subprocess.Popen[bytes]]:
    """The process ``courier`` of a node's device; killed at the end."""
    program = [sys.executable, "-m", "edge_runtime.process", "courier"]
    with (
        node.log.open("ab") as log,
        subprocess.Popen(
            [*program, "edge_runtime.app.courier:run", node.folder / "node.toml"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(os.environ),
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def scanner() -> Iterator[ListeningScanner]:
    with ListeningScanner() as listening:
        yield listening


@pytest.fixture
def ris() -> Iterator[UpstreamRis]:
    with UpstreamRis() as upstream:
        yield upstream


def _push(node: LoneNode, folder: Path) -> None:
    paths = []
    for number in range(1, IMAGES + 1):
        paths.append(folder / f"{number}.dcm")
        write_ct_slice(paths[-1], number=number, hu=0)
    results = send_files(paths, node.address, calling_ae_title="SCANNER", timeouts=TIMEOUTS)
    assert {result.status for result in results} == {0x0000}


def test_a_promise_outlives_kill_nine_of_the_node_and_of_the_courier(
    tmp_path: Path, scanner: ListeningScanner
) -> None:
    with LoneNode(folder=tmp_path, settings=_settings(scanner)) as node:
        _push(node, tmp_path)
        scanner.go_deaf()
        with call_node(node.port, node_ae_title=AE_TITLE) as link:
            assert link.ask(commitment_request("1.9", PAIRS)) == 0x0000
            node.kill()
        with closing(connect(node.database)) as connection:
            with _courier(node):
                wait_until(lambda: _error_code(connection) == "PEER_UNREACHABLE")
            scanner.listen()
            with _courier(node) as courier:
                scanner.before_answer = courier.kill
                scanner.wait_for_reports(1)
                courier.wait()
            scanner.before_answer = lambda: None
            with _courier(node):
                wait_until(lambda: not _owes_report(connection))
        first, second = scanner.reports
        assert first == second
        assert first.event_type == 1
        assert first.committed == tuple(PAIRS)
        written = node.log.read_text("utf-8")
    assert "errand.done" in written
    for secret in ("1.2.3.1", "SCANNER", "127.0.0.1"):
        assert secret not in written


def _error_code(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT error_code FROM errand").fetchone()
    return None if row is None else row["error_code"]


def _owes_report(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM errand").fetchone() is not None


def test_steps_reach_upstream_in_order_although_everything_dies_in_between(
    tmp_path: Path, scanner: ListeningScanner, ris: UpstreamRis
) -> None:
    ris.go_deaf()
    with LoneNode(folder=tmp_path, settings=_settings(scanner, ris)) as node:
        with call_node(
            node.port, node_ae_title=AE_TITLE, syntaxes=[ExplicitVRLittleEndian]
        ) as link:
            assert link.create(creation("1.2.3"), "1.40") == 0x0000
            node.kill()
        assert node.start()
        with call_node(
            node.port, node_ae_title=AE_TITLE, syntaxes=[ExplicitVRLittleEndian]
        ) as link:
            assert link.create(creation("1.2.3"), "1.40") == 0x0111
            assert link.set(change("COMPLETED", {"1.2.3.1": ["1.2.3.1.1"]}), "1.40") == 0x0000
            assert link.set(change("DISCONTINUED"), "1.40") == 0x0110
            node.kill()
        ris.listen()
        with _courier(node):
            ris.wait_for(2)
        written = node.log.read_text("utf-8")
    assert ris.taken == [("N-CREATE", "1.40"), ("N-SET", "1.40")]
    for secret in ("CANARY", "1.40", "1.2.3", "RIS", "127.0.0.1"):
        assert f'"{secret}' not in written


# ---------------------------------------------------------------- Orthanc


class Device:
    """A node and the courier's part of it, in this process."""

    def __init__(self, folder: Path, orthanc: Orthanc) -> None:
        self._folder = folder
        self._orthanc = orthanc
        self._stop = threading.Event()
        self.connections = [connect(folder / "triage.db") for _ in range(2)]
        clock = SystemClock()
        inbox = SqliteInbox(self.connections[0], clock, reopens=lambda _header: True)
        book = SqliteCommitments(self.connections[1], clock, patience_us=0, max_open=10)
        self.node = StorageNode(
            NodeSettings(
                ae_title="NODE",
                bind_address="127.0.0.1",
                port=0,
                min_free_bytes=0,
                peers=(PeerRule(ae_title=orthanc.ae_title),),
            ),
            spool_folder=folder / "spool",
            inbox=inbox,
            services=commitment_services(book, max_references=100),
        )
        self._courier = ErrandCourier(
            CommitmentReporter(
                lambda ae, address: PeerAddress(ae_title=ae, host=address, port=orthanc.dicom_port),
                calling_ae_title="NODE",
                spool_dir=folder / "spool",
                hold_us=0,
                timeouts=TIMEOUTS,
            ),
            database=folder / "triage.db",
            clock=clock,
            rule=RetryRule(first_delay_s=0.1, max_delay_s=1, max_attempts=5),
            lease_us=60_000_000,
            owner="courier",
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._courier.run, args=(self._stop,), name="courier")
        with self.node:
            thread.start()
            try:
                self._introduce()
                yield
            finally:
                self._stop.set()
                thread.join()
                for connection in self.connections:
                    connection.close()

    def _introduce(self) -> None:
        self._orthanc.rest.put(
            "/modalities/node",
            json={
                "AET": "NODE",
                "Host": "127.0.0.1",
                "Port": self.node.port,
                "AllowStorageCommitment": True,
                "AllowEventReport": True,
            },
        ).raise_for_status()


@pytest.fixture
def device(tmp_path: Path, orthanc: Orthanc) -> Iterator[Device]:
    made = Device(tmp_path, orthanc)
    with made.running():
        yield made


Ask = Callable[[list[str]], dict[str, object]]


@pytest.fixture
def ask(orthanc: Orthanc) -> Ask:
    """Let Orthanc ask for commitment of its instances, and wait for what it makes of the answer."""

    def request(instances: list[str]) -> dict[str, object]:
        asked = orthanc.rest.post(
            "/modalities/node/storage-commitment", json={"Resources": instances, "Timeout": 10}
        ).raise_for_status()
        report: dict[str, object] = {}

        def is_answered() -> bool:
            report.update(orthanc.rest.get(asked.json()["Path"]).raise_for_status().json())
            return report["Status"] != "Pending"

        wait_until(is_answered)
        return report

    return request


def _upload(orthanc: Orthanc, folder: Path, count: int) -> list[str]:
    ids = []
    for number in range(1, count + 1):
        path = folder / f"{number}.dcm"
        write_ct_slice(path, number=number, hu=0)
        answer = orthanc.rest.post("/instances", content=path.read_bytes()).raise_for_status()
        ids.append(str(answer.json()["ID"]))
    return ids


@pytest.mark.peer
def test_orthanc_learns_that_all_that_it_sent_is_committed(
    device: Device, orthanc: Orthanc, ask: Ask, tmp_path: Path
) -> None:
    assert device.node.port
    ids = _upload(orthanc, tmp_path, 3)
    orthanc.rest.post("/modalities/node/store", json={"Resources": ids}).raise_for_status()
    report = ask(ids)
    assert report["Status"] == "Success"
    assert report["RemoteAET"] == "NODE"
    assert len(report["Success"]) == 3  # type: ignore[arg-type]  # a list of JSON objects
    assert report["Failures"] == []


@pytest.mark.peer
def test_orthanc_learns_what_was_never_sent(
    device: Device, orthanc: Orthanc, ask: Ask, tmp_path: Path
) -> None:
    assert device.node.port
    ids = _upload(orthanc, tmp_path, 3)
    orthanc.rest.post("/modalities/node/store", json={"Resources": ids[:1]}).raise_for_status()
    report = ask(ids)
    assert report["Status"] == "Failure"
    failures = report["Failures"]
    assert isinstance(failures, list)
    missing = {str(dcmread(tmp_path / f"{number}.dcm").SOPInstanceUID) for number in (2, 3)}
    assert {item["SOPInstanceUID"] for item in failures} == missing
    assert {item["FailureReason"] for item in failures} == {0x0112}
