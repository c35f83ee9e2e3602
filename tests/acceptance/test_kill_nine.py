"""DESIGN.md section 3.6: killed at any instruction, nothing is lost and nothing happens twice."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pydicom import Dataset, dcmread
from simulators.broker_ear import BrokerEar, listen_to_broker
from simulators.killer import Killer
from simulators.orthanc import run_orthanc
from simulators.scanner import SLICES, Scanner
from simulators.waiting import wait_until
from simulators.witness_pacs import WitnessPacs

from dicom_node.headers import scan_file
from dicom_node.requestor import PeerAddress
from dicom_node.spool import Spool
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role
from edge_runtime.store.worklist import StudyView, list_studies
from telemetry.ledger import LEDGER_NAME, LedgerHead, verify
from tools.demo.site import Site, SiteOptions

pytestmark = [pytest.mark.peer, pytest.mark.alone, pytest.mark.usefixtures("temporary_folder")]

SEED = 20_250_131
SETTLES_S = 180.0
NEIGHBOURS = {"mosquitto", "mosquitto_sub", "Orthanc"}
# More kills of one process in a row, and its back-off would leave nothing to kill.
DECK = (Role.NODE,) * 4 + (Role.WORKER,) * 4 + (Role.COURIER,) * 3 + (Role.WEB,) * 2
SETTINGS = """
[worker]
max_attempts = 10  # an unlucky study shall have its outcome here, not "repeated crash"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """How long to shoot; between two rounds the whole device is killed."""

    rounds: int
    longest_gap_s: float

    @property
    def kills(self) -> int:
        """Kills of single processes, those of the whole device not counted."""
        return self.rounds * len(DECK)


@pytest.mark.timeout(600)
def test_after_dozens_of_kills_nothing_is_lost_and_nothing_happened_twice(
    tmp_path: Path, bright_package: Path
) -> None:
    _survive_with_a_witness(Fire(rounds=4, longest_gap_s=1.0), tmp_path, bright_package)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_after_hundreds_of_kills_nothing_is_lost_and_nothing_happened_twice(
    tmp_path: Path, bright_package: Path
) -> None:
    _survive_with_a_witness(Fire(rounds=32, longest_gap_s=2.0), tmp_path, bright_package)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_orthanc_has_each_report_once_after_the_kills(tmp_path: Path, bright_package: Path) -> None:
    with run_orthanc(tmp_path) as orthanc:
        address = PeerAddress(ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.dicom_port)
        fire = Fire(rounds=8, longest_gap_s=1.0)
        studies = _survive(fire, tmp_path, bright_package, address)
        reports = [dcmread(io.BytesIO(orthanc.file(name))) for name in orthanc.instances()]
        _assert_each_report_exists_once(studies, reports)


def _survive_with_a_witness(fire: Fire, folder: Path, package: Path) -> None:
    with WitnessPacs(folder / "witness") as pacs:
        studies = _survive(fire, folder, package, pacs.address)
        reports = [dcmread(path) for path in pacs.folder.glob("*.dcm")]
        _assert_each_report_exists_once(studies, reports)
        assert len(pacs.digests) == len(reports)
        # What arrived again after a crash was the same, to the byte.
        assert all(len(set(digests)) == 1 for digests in pacs.digests.values())


def _survive(fire: Fire, folder: Path, package: Path, pacs: PeerAddress) -> tuple[StudyView, ...]:
    """Shoot, and check all but the PACS; the studies as they stand afterwards."""
    with contextlib.ExitStack() as stack:
        options = SiteOptions(models=(str(package),), pacs=pacs, settings=SETTINGS)
        site = stack.enter_context(Site(folder / "site", options))
        ear = stack.enter_context(listen_to_broker(site.broker_port, folder / "heard"))
        scanner = Scanner(node=site.node, folder=folder / "scanner", seed=SEED)
        killer = Killer(site=site, seed=SEED + 1, longest_gap_s=fire.longest_gap_s)
        neighbours = [
            process for process in psutil.Process().children() if process.name() in NEIGHBOURS
        ]
        _shoot(fire, scanner, killer)
        assert killer.kills.total() >= fire.kills
        assert min(killer.kills[role] for role in Role) >= fire.rounds * 2
        assert killer.kills_at_work >= fire.kills // 2
        _wait_until_settled(site)
        _start_again(site)
        assert len(neighbours) >= 2
        assert all(process.is_running() for process in neighbours)
        with contextlib.closing(connect(site.database)) as connection:
            studies = list_studies(connection, limit=100_000)
            _assert_what_was_acknowledged_is_held(connection, site, scanner)
            _assert_files_and_rows_agree(connection, site)
            _assert_databases_are_whole(connection, site)
        _assert_each_study_has_its_outcome(studies, scanner)
        _assert_each_delivery_arrived(studies)
        _assert_each_event_was_heard_and_ledgered(studies, ear, site)
    return studies


# ---------------------------------------------------------------- under fire


def _shoot(fire: Fire, scanner: Scanner, killer: Killer) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="scanner") as pool:
        pushing = pool.submit(scanner.push_until, stop)
        try:
            for number in range(fire.rounds):
                _shoot_round(killer)
                if number < fire.rounds - 1:
                    killer.wait_a_moment()
                    killer.kill_device(with_children=number % 2 == 0)
        finally:
            stop.set()
        pushing.result()


def _shoot_round(killer: Killer) -> None:
    for role in killer.rng.sample(DECK, len(DECK)):
        killer.kill_process(role)


def _wait_until_settled(site: Site) -> None:
    with contextlib.closing(connect(site.database)) as connection:
        wait_until(lambda: _unsettled(connection) == 0, SETTLES_S)


def _unsettled(connection: sqlite3.Connection) -> int:
    return int(
        connection.execute(
            "SELECT (SELECT count(*) FROM study WHERE state <> 'COMPLETE')"
            " + (SELECT count(*) FROM analysis WHERE state IN ('QUEUED', 'RUNNING'))"
            " + (SELECT count(*) FROM delivery WHERE state = 'PENDING'"
            "    OR (channel = 'telemetry' AND state = 'SENT'))"
        ).fetchone()[0]
    )


def _start_again(site: Site) -> None:
    """Stop in order and start: the start-up scan has seen all that the kills left."""
    assert site.stop_device() == 0
    site.start_device()
    site.wait_until_ready()


# ---------------------------------------------------------------- what must be true now


def _assert_what_was_acknowledged_is_held(
    connection: sqlite3.Connection, site: Site, scanner: Scanner
) -> None:
    assert len(scanner.stored) == len(scanner.studies) * SLICES
    rows = {
        row["sop_instance_uid"]: row
        for row in connection.execute("SELECT sop_instance_uid, path FROM instance")
    }
    assert rows.keys() == scanner.stored.keys()
    for uid, sent in scanner.stored.items():
        stored = site.state_dir / "spool" / rows[uid]["path"]
        assert _data_set(stored) == _data_set(sent)


def _data_set(path: Path) -> bytes:
    return path.read_bytes()[scan_file(path).meta.data_set_offset :]


def _assert_files_and_rows_agree(connection: sqlite3.Connection, site: Site) -> None:
    spool = Spool(site.state_dir / "spool")
    rows = {row["path"] for row in connection.execute("SELECT path FROM instance")}
    assert set(spool.iter_files()) == rows
    assert not any((spool.root / "incoming").iterdir())
    assert not any((spool.root / "quarantine").iterdir())
    assert connection.execute("SELECT count(*) FROM quarantine").fetchone()[0] == 0
    assert connection.execute("SELECT count(*) FROM alarm").fetchone()[0] == 0


def _assert_databases_are_whole(connection: sqlite3.Connection, site: Site) -> None:
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    with contextlib.closing(_open_outbox(site)) as outbox:
        assert outbox.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def _open_outbox(site: Site) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{site.state_dir / 'telemetry' / 'outbox.db'}?mode=ro", uri=True)


def _assert_each_study_has_its_outcome(studies: tuple[StudyView, ...], scanner: Scanner) -> None:
    assert len(studies) == len(scanner.studies)
    pushed = {study.uid: study for study in scanner.studies}
    for study in studies:
        assert study.instances == SLICES
        revisions = sorted(analysis.revision for analysis in study.analyses)
        assert revisions == list(range(1, study.revision + 1))
        (current,) = study.current
        expected = (
            AnalysisState.SUSPECTED
            if pushed[study.study_instance_uid].is_bright
            else AnalysisState.NOT_SUSPECTED
        )
        assert (current.revision, current.state) == (study.revision, expected)
        earlier = [analysis for analysis in study.analyses if analysis is not current]
        assert all(analysis.state is AnalysisState.SUPERSEDED for analysis in earlier)


def _assert_each_delivery_arrived(studies: tuple[StudyView, ...]) -> None:
    for study in studies:
        for analysis in study.analyses:
            decided = analysis.outcome is not None
            assert {item.channel: item.state for item in analysis.deliveries} == (
                {
                    Channel.STRUCTURED_REPORT: DeliveryState.SENT,
                    Channel.TELEMETRY: DeliveryState.CONFIRMED,
                }
                if decided
                else {}
            )


def _assert_each_report_exists_once(
    studies: tuple[StudyView, ...], reports: Sequence[Dataset]
) -> None:
    """One object for each decided revision, those that were superseded later included."""
    decided = Counter(
        (study.study_instance_uid, analysis.revision)
        for study in studies
        for analysis in study.analyses
        if analysis.outcome is not None
    )
    assert set(decided.values()) == {1}
    assert Counter(_revision_of(report) for report in reports) == decided


def _revision_of(report: Dataset) -> tuple[str, int]:
    _, _, number = str(report.SeriesDescription).partition("(REVISION ")
    return str(report.StudyInstanceUID), int(number.rstrip(")") or 1)


def _assert_each_event_was_heard_and_ledgered(
    studies: tuple[StudyView, ...], ear: BrokerEar, site: Site
) -> None:
    """By its id, which a receiver discards repetitions by, each analysis was told of once."""
    decided = sum(analysis.outcome is not None for study in studies for analysis in study.analyses)
    assert len(ear.events("analysis")) == decided
    with contextlib.closing(_open_outbox(site)) as outbox:
        row = outbox.execute("SELECT ledger_seq, ledger_hash FROM counters").fetchone()
    report = verify(
        site.state_dir / "ledger" / LEDGER_NAME, at_least=LedgerHead(seq=row[0], hash=row[1])
    )
    assert report.is_intact
    assert report.entries >= decided
