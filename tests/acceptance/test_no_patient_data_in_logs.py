"""DESIGN.md section 3.8: patient data is in no log line at any level, and leaves in no message.

One device goes through every path at log level debug, failures included, with canaries in all that
its peers send; then everything that it wrote for others to read is searched.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import secrets
import socket
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from simulators.brittle_package import write_brittle_package
from simulators.broker import Broker
from simulators.broker_ear import BrokerEar, listen_to_broker
from simulators.canaries import FOREIGN_TOKEN, TOKEN, UID_ROOT, Canaries
from simulators.canary_scanner import BRIGHT_HU, SLICES, CanaryScanner, data_set_of
from simulators.model_package import write_model_package
from simulators.refusing_pacs import RefusingPacs
from simulators.waiting import wait_until

from dicom_node.archive import FolderArchive
from dicom_node.requestor import PeerAddress
from dicom_node.scu import SendOutcome
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.store.database import connect
from edge_runtime.store.worklist import StudyView, list_studies
from telemetry.ledger import LEDGER_NAME
from tools.demo.ports import free_port
from tools.demo.site import PACS_AE_TITLE, Site, SiteOptions

pytestmark = [pytest.mark.peer, pytest.mark.alone, pytest.mark.timeout(300)]

WAITS_S = 90.0
STORED, REFUSED = SendOutcome.STORED, SendOutcome.REFUSED
SETTINGS = """
[assembly]
quiet_s = 0.3

[courier.retry]
first_delay_s = 0.1
max_delay_s = 0.5

[telemetry]
host = "127.0.0.1"
port = {port}
tls = false
health_interval_s = 1.0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the device wrote, and where the canaries must be: in its database."""

    canaries: Canaries
    log: bytes
    heard: bytes
    ledger: bytes
    outbox: bytes
    database: bytes

    def events(self) -> Counter[str]:
        """Count the log's events."""
        lines = self.log.decode().splitlines()
        return Counter(json.loads(line)["event"] for line in lines if line.startswith("{"))


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("canaries")
    write_model_package(folder / "bright")
    write_brittle_package(folder / "brittle")
    broker = Broker(folder / "broker")
    pacs_port = free_port()
    options = SiteOptions(
        with_broker=False,
        forward=True,
        models=(str(folder / "bright"), str(folder / "brittle")),
        pacs=PeerAddress(ae_title=PACS_AE_TITLE, host="127.0.0.1", port=pacs_port),
        log_level="debug",
        settings=SETTINGS.format(port=broker.port),
    )
    heard = b""
    with Site(folder / "site", options) as site:
        scanner = CanaryScanner(node=site.node, folder=folder / "scanner")
        course = _Course(site, scanner)
        _go_while_neighbours_are_away(course)
        broker.start()
        try:
            with listen_to_broker(broker.port, folder / "heard") as ear:
                _go_while_the_pacs_refuses(course, folder, pacs_port)
                with FolderArchive(folder / "pacs", ae_title=PACS_AE_TITLE, port=pacs_port):
                    _go_through_every_study(course)
                    _go_through_the_page(course)
                    _go_through_a_damaged_start(course)
                    course.wait_until(lambda: _hears_all(course, ear))
            broker.stop()
            heard += b"".join(m.topic.encode() + b" " + m.payload + b"\n" for m in ear.messages())
            course.push(BRIGHT_HU)
        finally:
            broker.stop()
        state = site.state_dir
    return Evidence(
        canaries=scanner.canaries,
        log=site.log.read_bytes(),
        heard=heard,
        ledger=(state / "ledger" / LEDGER_NAME).read_bytes(),
        outbox=_all_bytes(state / "telemetry"),
        database=site.database.read_bytes(),
    )


def _all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


# ---------------------------------------------------------------- the course


class _Course:
    """The device and its scanner, and how to see how far the device is."""

    def __init__(self, site: Site, scanner: CanaryScanner) -> None:
        self.site = site
        self.scanner = scanner

    def studies(self) -> tuple[StudyView, ...]:
        with contextlib.closing(connect(self.site.database)) as connection:
            return list_studies(connection, limit=1_000)

    def study(self, uid: str) -> StudyView:
        (found,) = (study for study in self.studies() if study.study_instance_uid == uid)
        return found

    def push(self, hu: int, *, character_set: str = "ISO_IR 192") -> tuple[list[Path], str]:
        """Push a good study and wait until it is decided; its files and its UID."""
        paths = self.scanner.draw(hu=hu, character_set=character_set)
        assert self.scanner.send(paths) == {STORED}
        return paths, self.settle()

    def settle(self, *, revision: int = 1) -> str:
        """Wait until the newest study is decided; its UID."""
        uid = f"{UID_ROOT}.{self.scanner.studies}"
        self.wait_until(lambda: self._is_decided(uid, revision))
        return uid

    def reasons(self, uid: str) -> dict[str, ReasonCode | None]:
        return {analysis.model_name: analysis.reason for analysis in self.study(uid).current}

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, WAITS_S)

    def wait_for_event(self, event: str) -> None:
        words = f'"{event}"'.encode()
        self.wait_until(lambda: words in self.site.log.read_bytes())

    def _is_decided(self, uid: str, revision: int) -> bool:
        study = self.study(uid)
        current = study.current
        return (
            study.revision == revision
            and len(current) == 2
            and all(analysis.outcome is not None for analysis in current)
        )


def _go_while_neighbours_are_away(course: _Course) -> None:
    """Neither PACS nor broker is there."""
    course.push(BRIGHT_HU)
    course.wait_for_event("delivery.postponed")
    course.wait_for_event("telemetry.not_connected")


def _go_while_the_pacs_refuses(course: _Course, folder: Path, port: int) -> None:
    """First it does not know us, then it refuses each object."""
    with FolderArchive(folder / "stranger", ae_title="STRANGER", port=port):
        course.wait_until(lambda: b'"ASSOCIATION_REJECTED"' in course.site.log.read_bytes())
    with RefusingPacs(folder / "refusing", ae_title=PACS_AE_TITLE, port=port):
        course.wait_for_event("delivery.dead")


def _go_through_every_study(course: _Course) -> None:
    scanner = course.scanner
    for character_set in ("ISO_IR 192", "ISO_IR 100"):
        paths, uid = course.push(BRIGHT_HU, character_set=character_set)
        assert course.reasons(uid) == {"bright": None, "brittle": ReasonCode.ENGINE_FAILED}
    assert scanner.send(paths) == {STORED}  # again: all are known
    assert scanner.send_conflicting(paths[0]) == {STORED}
    course.wait_for_event("node.instance_quarantined")

    late = scanner.draw()
    scanner.send(late[:-1])
    course.settle()
    scanner.send(late[-1:])
    course.settle(revision=2)

    assert scanner.send_undecodable(scanner.draw()) == {STORED}
    assert set(course.reasons(course.settle()).values()) == {ReasonCode.UNDECODABLE_PIXELS}
    _send_what_is_broken(course)


def _send_what_is_broken(course: _Course) -> None:
    scanner = course.scanner
    cut = scanner.draw()
    for path in cut:
        assert scanner.send_raw(path, data_set_of(path)[:-40]) is STORED  # pixels are missing
    assert set(course.reasons(course.settle()).values()) != {None}

    path = scanner.draw()[0]
    whole = data_set_of(path)
    assert scanner.send_raw(path, whole[:300]) is REFUSED
    assert scanner.send_raw(path, b"\xff" * 8 + TOKEN.encode() * 100) is REFUSED
    other = scanner.canaries.note(f"{UID_ROOT}.4711")
    assert scanner.send_raw(path, whole, named=other) is REFUSED
    scanner.break_off()
    scanner.call_wrongly()
    scanner.talk_garbage()
    course.wait_for_event("node.association_rejected")
    course.wait_for_event("node.message_invalid")


def _go_through_the_page(course: _Course) -> None:
    port = course.site.web_port
    keys = [study.study_key for study in course.studies()]
    uid = course.studies()[0].study_instance_uid
    good = ("/", "/device", "/api/studies", f"/study/{keys[0]}", f"/api/studies/{keys[0]}")
    assert {_ask(port, "GET", path) for path in good} == {200}
    for path in (
        f"/study/{uid}",
        f"/api/studies/{uid}",
        f"/study/{TOKEN}%00%0a{TOKEN}",
        f"/?page={TOKEN}",
        f"/api/studies?limit={TOKEN}&offset={TOKEN}",
        f"/static/..%2f..%2f{TOKEN}",
        f"/static/%2e%2e/%2e%2e/{TOKEN}",
        f"/{TOKEN * 500}",
    ):
        assert _ask(port, "GET", path) >= 400
    assert _ask(port, "GET", "/", Host=f"{TOKEN}.example") == 421
    assert _ask(port, "GET", "/", Authorization=f"Basic {TOKEN}", Cookie=TOKEN) == 200
    assert _ask(port, "POST", f"/study/{keys[0]}/acknowledge", Origin=f"http://{TOKEN}") == 403
    form = f"analysis={TOKEN}&back={TOKEN}"
    page = f"http://127.0.0.1:{port}"
    assert _ask(port, "POST", f"/study/{keys[0]}/acknowledge", form, Origin=page) == 400
    for words in (f"{TOKEN} {TOKEN}\r\n\r\n", f"GET / HTTP/1.1\r\n{TOKEN * 9_000}\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(words.encode())
            with contextlib.suppress(ConnectionError):
                connection.recv(4_096)


def _ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def _go_through_a_damaged_start(course: _Course) -> None:
    """A file is gone, one is no DICOM, one was never finished; then a study lacks the file."""
    scanner, site = course.scanner, course.site
    paths = scanner.draw(slices=SLICES + 1)
    scanner.send(paths[:-1])
    uid = course.settle()
    with contextlib.closing(connect(site.database)) as connection:
        lost = _path_of(connection, uid)
    course.wait_until(lambda: _is_forwarded(course.study(uid)))
    assert site.stop_device() == 0
    spool = site.state_dir / "spool"
    (spool / lost).unlink()
    (spool / "00" / f"{secrets.token_hex(15)}.dcm").write_text(f"{TOKEN} is no DICOM")
    (spool / "incoming" / secrets.token_hex(15)).write_text(f"{TOKEN} is not whole")
    site.start_device()
    site.wait_until_ready()
    scanner.send(paths[-1:])
    course.settle(revision=2)
    assert set(course.reasons(uid).values()) == {ReasonCode.IMAGES_LOST}


def _path_of(connection: sqlite3.Connection, uid: str) -> str:
    row = connection.execute(
        "SELECT path FROM instance JOIN study ON study.id = study_id WHERE study_instance_uid = ?",
        (uid,),
    ).fetchone()
    return str(row["path"])


def _is_forwarded(study: StudyView) -> bool:
    return all(
        delivery.state is not DeliveryState.PENDING
        for analysis in study.analyses
        for delivery in analysis.deliveries
        if delivery.channel is Channel.FORWARD
    )


def _hears_all(course: _Course, ear: BrokerEar) -> bool:
    decided = sum(
        analysis.outcome is not None for study in course.studies() for analysis in study.analyses
    )
    return len(ear.events("analysis")) == decided and bool(ear.events("health"))


# ---------------------------------------------------------------- what must be true of it


@pytest.mark.parametrize("written", ["log", "heard", "ledger", "outbox"])
def test_no_canary_is_in_what_others_may_read(evidence: Evidence, written: str) -> None:
    content: bytes = getattr(evidence, written)
    assert len(content) > 1_000
    assert evidence.canaries.find(content) == ()


def test_the_canaries_did_arrive(evidence: Evidence) -> None:
    """The search is no proof unless it finds them where they belong."""
    found = evidence.canaries.find(evidence.database)
    for needle in (TOKEN, FOREIGN_TOKEN, UID_ROOT):
        assert any(needle in item for item in found)


@pytest.mark.parametrize(
    "event",
    [
        "analysis.decided",
        "analysis.failed",
        "delivery.dead",
        "delivery.done",
        "delivery.postponed",
        "node.association_rejected",
        "node.instance_quarantined",
        "node.instance_refused",
        "node.instance_stored",
        "node.message_invalid",
        "node.reconciled",
        "preparation.failed",
        "process.ended",
        "study.reopened",
        "telemetry.connected",
        "telemetry.not_connected",
        "web.stopped",
    ],
)
def test_every_path_was_taken(evidence: Evidence, event: str) -> None:
    assert evidence.events()[event] > 0


def test_every_line_of_the_log_is_one_of_ours(evidence: Evidence) -> None:
    """No library and no interpreter wrote beside the log."""
    strangers = [line for line in evidence.log.splitlines() if not line.startswith(b"{")]
    assert strangers == []
    for line in evidence.log.splitlines():
        assert {"event", "level", "process", "timestamp"} <= json.loads(line).keys()


def _disguises_of_the_token() -> tuple[bytes, ...]:
    text = f"{TOKEN}00100010^{TOKEN}"
    inside = json.dumps({"patient": text}).encode()
    return (
        text.lower().encode(),
        FOREIGN_TOKEN.encode(),
        FOREIGN_TOKEN.encode("latin-1"),
        json.dumps(FOREIGN_TOKEN).encode(),
        text.encode().hex().encode(),
        *(base64.b64encode(b"x" * before + inside) for before in range(3)),
        hashlib.md5(text.encode()).hexdigest().encode(),
        b"key=" + hashlib.sha256(text.encode()).hexdigest()[:16].encode(),
        hashlib.sha1(text.encode()).hexdigest().upper().encode(),
        base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()),
        b"at 03:09:17.271828 on 1893-04-17",
    )


def test_the_search_sees_through_disguises() -> None:
    canaries = Canaries()
    canaries.note(f"{TOKEN}00100010^{TOKEN}")
    for text in _disguises_of_the_token():
        assert canaries.find(b"before " + text + b" after"), text
    assert canaries.find(b"nothing to see, 0123456789abcdef0123456789abcdef") == ()
