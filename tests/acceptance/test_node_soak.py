"""Hours of mixed load at full speed with random kills: nothing lost, nothing twice, nothing leaks.

``EDGE_TRIAGE_SOAK_S`` says how long (an hour if it is not set), ``EDGE_TRIAGE_SOAK_REPORT`` where
the report goes: that file as JSON, and a table beside it. In the first half the node lives through,
so that leaks show; in the second it is killed every now and then, and the supervisor starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from simulators.inspection import generations_of, look_at
from simulators.killer import Killer
from simulators.load import KINDS, Gate, Modality, SentStudy, Tally, digest_of, make_template
from simulators.waiting import wait_until

from dicom_node.journal import SEGMENTS
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role, list_processes
from tools.demo.site import Site, SiteOptions

pytestmark = [
    pytest.mark.soak,
    pytest.mark.peer,
    pytest.mark.timeout(0),
    pytest.mark.usefixtures("temporary_folder"),
]

_SOAK_S = float(os.environ.get("EDGE_TRIAGE_SOAK_S", "3600"))
_REPORT = os.environ.get("EDGE_TRIAGE_SOAK_REPORT")
_MODALITIES = 4
_KEEP_S = 60
# Modalities wait while the spool holds more: retention needs a minute.
_SPOOL_BYTES = int(os.environ.get("EDGE_TRIAGE_SOAK_SPOOL_BYTES", str(4 << 30)))
_SAMPLE_S = 1.0
_SETTLES_S = 300.0
_QUIET_POINTS = 6
"""In the steady half."""
_FLAT_BYTES = 16 << 20
"""The allocator's play over hours; a leak of 100 bytes an instance would be more."""
_REMEMBERED = 2_000
_SLOPE_HOURS = 0.3
_UNSETTLED = (
    "SELECT (SELECT count(*) FROM study WHERE state <> 'COMPLETE')"
    " + (SELECT count(*) FROM analysis WHERE state IN ('QUEUED', 'RUNNING'))"
    " + (SELECT count(*) FROM delivery WHERE state = 'PENDING')"
)
_SETTINGS = f"""
[retention]
keep_s = {_KEEP_S}
least_keep_s = 30
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The node at one moment of its life."""

    at_s: float
    resident_bytes: int
    descriptors: int
    threads: int


@dataclass(slots=True, kw_only=True)
class Soak:
    """One run: the device, its load, and what was seen."""

    site: Site
    tally: Tally
    gate: Gate
    began_s: float = field(default_factory=time.monotonic)
    audits: queue.SimpleQueue[SentStudy | None] = field(default_factory=queue.SimpleQueue)
    steady: list[Sample] = field(default_factory=list)
    quiet: list[Sample] = field(default_factory=list)
    studies: dict[str, SentStudy] = field(default_factory=dict)
    """Those that may still be held."""
    generations: set[bytes] = field(default_factory=set)
    """Of the journal's segments, as far as they were seen."""
    peak_bytes: int = 0
    faults: list[str] = field(default_factory=list)
    restarts_s: list[float] = field(default_factory=list)
    is_steady: bool = True

    def node_pid(self) -> int:
        """The process id of the node as it last reported."""
        with contextlib.closing(connect(self.site.database)) as connection:
            return next(each.pid for each in list_processes(connection) if each.role is Role.NODE)

    def sample(self) -> Sample:
        """Look at the node."""
        process = psutil.Process(self.node_pid())
        return Sample(
            at_s=time.monotonic() - self.began_s,
            resident_bytes=process.memory_info().rss,
            descriptors=process.num_fds(),
            threads=process.num_threads(),
        )


def test_hours_of_load_and_kills_lose_nothing_and_leak_nothing(
    tmp_path: Path, bright_package: Path, request: pytest.FixtureRequest
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    request.node.add_report_section("call", "soak", f"seed {seed}")
    options = SiteOptions(models=(str(bright_package),), settings=_SETTINGS, with_broker=False)
    stop, done = threading.Event(), threading.Event()
    with Site(tmp_path / "site", options) as site:
        soak = Soak(site=site, tally=Tally(), gate=Gate())
        with ThreadPoolExecutor(_MODALITIES + 3, thread_name_prefix="soak") as pool:
            modalities = [
                pool.submit(each.send_until, stop) for each in _modalities(soak, seed, tmp_path)
            ]
            watching = [pool.submit(_audit, soak), pool.submit(_watch, soak, done)]
            try:
                _live_through(soak, _SOAK_S / 2, modalities)
                soak.is_steady = False
                _shoot(soak, _SOAK_S / 2, seed, modalities)
            finally:
                stop.set()
                soak.gate.open()
                _results(modalities)
                soak.audits.put(None)
                done.set()
            _results(watching)
        elapsed_s = time.monotonic() - soak.began_s
        _assert_settled(soak)
    _write_report(soak, seed, elapsed_s)
    assert soak.faults == []
    _assert_flat(soak)
    assert soak.tally.counts["acknowledged"] > 100
    # With the journal, which was used again and again, and past it.
    assert all(soak.tally.counts[f"acknowledged {kind.modality}"] for kind in KINDS)
    assert len(soak.generations) > 2 * SEGMENTS
    assert soak.restarts_s


def _modalities(soak: Soak, seed: int, folder: Path) -> Iterator[Modality]:
    templates = [make_template(kind, folder) for kind in KINDS]
    for number in range(1, _MODALITIES + 1):
        files = folder / f"files-{number}"
        files.mkdir()
        yield Modality(
            number=number,
            node=soak.site.node,
            templates=templates,
            seed=seed,
            tally=soak.tally,
            gate=soak.gate,
            on_study=soak.audits.put,
            folder=files,
            uses_dcmtk=number == _MODALITIES,
        )


def _results(futures: Sequence[Future[None]]) -> None:
    for each in futures:
        each.result()


# ---------------------------------------------------------------- the two halves


def _live_through(soak: Soak, seconds: float, modalities: Sequence[Future[None]]) -> None:
    """Load without kills, with a quiet moment now and then to see what is left over."""
    pause = threading.Event()
    for _ in range(_QUIET_POINTS):
        pause.wait(seconds / _QUIET_POINTS)
        _raise_early(modalities)
        _look_while_quiet(soak)
        soak.quiet.append(soak.sample())
        soak.gate.open()


def _shoot(soak: Soak, seconds: float, seed: int, modalities: Sequence[Future[None]]) -> None:
    """Kill the node every 20 to 60 s; in a short run proportionally more often."""
    rng = random.Random(seed)
    killer = Killer(site=soak.site, seed=seed, longest_gap_s=0.1)
    ends_s = time.monotonic() + seconds
    shortest_s, longest_s = min(20.0, seconds / 8), min(60.0, seconds / 3)
    pause = threading.Event()
    while (left_s := ends_s - time.monotonic()) > 0:
        pause.wait(min(left_s, rng.uniform(shortest_s, longest_s)))
        _raise_early(modalities)
        pid = soak.node_pid()
        killer.kill_process(Role.NODE)
        died_s = time.monotonic()
        wait_until(lambda: soak.node_pid() != pid, _SETTLES_S)  # noqa: B023  waited for here
        soak.restarts_s.append(time.monotonic() - died_s)
    _look_while_quiet(soak)
    soak.gate.open()


def _raise_early(modalities: Sequence[Future[None]]) -> None:
    for each in modalities:
        if each.done():
            each.result()
            raise AssertionError("a modality has ended")


def _look_while_quiet(soak: Soak) -> None:
    """Rows and files must agree while nobody sends; retention goes on meanwhile."""
    soak.gate.close()
    with contextlib.closing(connect(soak.site.database)) as connection:
        wait_until(
            lambda: connection.execute(
                "SELECT count(*) = 0 FROM association WHERE ended IS NULL"
            ).fetchone()[0],
            _SETTLES_S,
        )
        spool = soak.site.state_dir / "spool"
        files = {f"{each.parent.name}/{each.name}" for each in spool.glob("[0-9a-f][0-9a-f]/*")}
        rows = {row["path"] for row in connection.execute("SELECT path FROM instance")}
        leaving = {row["path"] for row in connection.execute("SELECT path FROM spool_removal")}
        again = {row["path"] for row in connection.execute("SELECT path FROM instance")}
        without_file = [path for path in rows & again if not (spool / path).exists()]
        still = {row["path"] for row in connection.execute("SELECT path FROM instance")}
        # Retention may have taken a row between two of these looks, and its file in the next.
        lost = [path for path in without_file if path in still]
        strange = [path for path in files - rows - leaving if (spool / path).exists()]
        if lost:
            soak.faults.append(f"{len(lost)} rows without a file")
        if strange:
            soak.faults.append(f"{len(strange)} files without a row")
        if unfinished := list((spool / "incoming").iterdir()):
            soak.faults.append(f"{len(unfinished)} unfinished files in a quiet moment")


# ---------------------------------------------------------------- watching


def _watch(soak: Soak, done: threading.Event) -> None:
    """Sample the node, and let modalities wait while the spool is full enough."""
    with contextlib.closing(connect(soak.site.database)) as connection:
        while not done.wait(_SAMPLE_S):
            with contextlib.suppress(psutil.Error):
                sample = soak.sample()
                if soak.is_steady:
                    soak.steady.append(sample)
                soak.peak_bytes = max(soak.peak_bytes, sample.resident_bytes)
            soak.generations.update(generations_of(soak.site.state_dir / "spool"))
            held = connection.execute("SELECT total(file_bytes) FROM instance").fetchone()[0]
            soak.gate.hold(is_full=held > _SPOOL_BYTES)


def _audit(soak: Soak) -> None:
    """Compare each study with what was acknowledged, before retention takes it."""
    with contextlib.closing(connect(soak.site.database)) as connection:
        while (study := soak.audits.get()) is not None:
            soak.studies[study.uid] = study
            soak.tally.add("studies looked at", _compare(soak, connection, study))
            if len(soak.studies) > _REMEMBERED:
                soak.studies = {
                    uid: each for uid, each in soak.studies.items() if _is_held(connection, uid)
                }


def _is_held(connection: sqlite3.Connection, uid: str) -> bool:
    found = connection.execute("SELECT 1 FROM study WHERE study_instance_uid = ?", (uid,))
    return found.fetchone() is not None


def _compare(soak: Soak, connection: sqlite3.Connection, study: SentStudy) -> bool:
    """Look for faults in a study; False when it has left the device meanwhile."""
    rows = connection.execute(
        "SELECT sop_instance_uid, path FROM instance JOIN study ON study.id = study_id "
        "WHERE study_instance_uid = ?",
        (study.uid,),
    ).fetchall()
    conflicts = connection.execute(
        "SELECT count(*) FROM quarantine JOIN instance ON instance.id = instance_id "
        "JOIN study ON study.id = study_id WHERE study_instance_uid = ?",
        (study.uid,),
    ).fetchone()[0]
    found = [
        f"{study.uid}: {fault}"
        for fault in _differences(study, rows, conflicts, soak.site.state_dir / "spool")
    ]
    if not _is_held(connection, study.uid):
        return False
    soak.faults += found
    return True


def _differences(
    study: SentStudy, rows: Sequence[sqlite3.Row], conflicts: int, spool: Path
) -> Iterator[str]:
    paths = {row["sop_instance_uid"]: row["path"] for row in rows}
    if len(paths) != len(rows):
        yield "an instance is held twice"
    if extra := paths.keys() - study.instances.keys():
        yield f"{len(extra)} instances were never acknowledged"
    if missing := study.instances.keys() - paths.keys():
        yield f"{len(missing)} acknowledged instances are missing"
    if conflicts != study.conflicts:
        yield f"{conflicts} instances are in quarantine instead of {study.conflicts}"
    for uid, path in paths.items():
        digest, length = study.instances.get(uid, (b"", 0))
        try:
            stored = (spool / path).read_bytes()
        except FileNotFoundError:
            yield "a file is missing"
            continue
        if digest_of(memoryview(stored)[len(stored) - length :]) != digest:
            yield "an instance is held with other bytes"


# ---------------------------------------------------------------- afterwards


def _assert_settled(soak: Soak) -> None:
    """Every study has its outcome, and a stopped device holds nothing half."""
    site = soak.site
    with contextlib.closing(connect(site.database)) as connection:
        wait_until(lambda: connection.execute(_UNSETTLED).fetchone()[0] == 0, _SETTLES_S)
    site.stop_device()
    site.start_device()  # the start-up scan
    site.wait_until_ready()
    site.stop_device()
    held = look_at(site.database, site.state_dir / "spool")
    assert held.faults == ()
    assert held.incoming == 0
    assert held.open_associations == 0
    with contextlib.closing(connect(site.database)) as connection:
        leaving = {row["path"] for row in connection.execute("SELECT path FROM spool_removal")}
        rows = set(held.paths.values())
        assert rows <= held.files
        assert held.files - rows <= leaving
        for study in soak.studies.values():
            _compare(soak, connection, study)
        known = connection.execute(
            "SELECT (SELECT count(*) FROM departed) + (SELECT count(*) FROM study "
            "WHERE id NOT IN (SELECT study_id FROM departing))"
        ).fetchone()[0]
    assert known == soak.tally.counts["studies"]
    looked_at = soak.tally.counts["studies looked at"]
    assert looked_at >= 0.9 * soak.tally.counts["studies"]


def _assert_flat(soak: Soak) -> None:
    """Neither memory nor descriptors nor threads grow from quiet moment to quiet moment."""
    warm = soak.quiet[1:]
    assert max(each.descriptors for each in warm) <= soak.quiet[0].descriptors + 2
    assert max(each.threads for each in warm) <= soak.quiet[0].threads + 1
    memory = [each.resident_bytes for each in warm]
    assert max(memory[len(memory) // 2 :]) <= max(memory[: len(memory) // 2]) + _FLAT_BYTES


def _write_report(soak: Soak, seed: int, elapsed_s: float) -> None:
    if _REPORT is None:
        return
    path = Path(_REPORT)
    figures = _figures(soak, seed, elapsed_s)
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    lines = [f"| {name.replace('_', ' ')} | {value} |" for name, value in figures.items()]
    table = ["| figure | value |", "|---|---|", *lines]
    path.with_suffix(".md").write_text("\n".join(table) + "\n", encoding="utf-8")


def _figures(soak: Soak, seed: int, elapsed_s: float) -> Mapping[str, object]:
    counts = soak.tally.counts
    echo_ms = sorted(soak.tally.echo_ms) or [0.0]
    refused = {name: count for name, count in counts.items() if name.startswith("status")}
    return {
        "seed": seed,
        "seconds": round(elapsed_s),
        "studies": counts["studies"],
        "instances_acknowledged": counts["acknowledged"],
        "instances_by_modality": {
            kind.modality: counts[f"acknowledged {kind.modality}"] for kind in KINDS
        },
        "journal_segments_seen": len(soak.generations),
        "gigabytes_acknowledged": round(counts["acknowledged bytes"] / 1e9, 2),
        "instances_per_s": round(counts["acknowledged"] / elapsed_s, 1),
        "megabytes_per_s": round(counts["acknowledged bytes"] / elapsed_s / 1e6, 1),
        "associations": counts["associations"],
        "duplicates": counts["duplicates"],
        "conflicting_duplicates": counts["conflicts"],
        "broken_off_in_a_data_set": counts["broken off"],
        "echoes": counts["echoes"],
        "echo_median_ms": round(statistics.median(echo_ms), 1),
        "echo_slowest_ms": round(echo_ms[-1], 1),
        "kills_of_the_node": len(soak.restarts_s),
        "ready_again_median_s": round(statistics.median(soak.restarts_s or [0.0]), 2),
        "ready_again_slowest_s": round(max(soak.restarts_s or [0.0]), 2),
        "associations_lost": counts["associations lost"],
        "refusals": refused,
        "studies_compared_byte_by_byte": counts["studies looked at"],
        "faults_found": len(soak.faults),
        "steady_seconds": round(soak.steady[-1].at_s if soak.steady else 0),
        "quiet_memory_mb": [round(each.resident_bytes / 1e6, 1) for each in soak.quiet],
        "memory_slope_mb_per_h": _slope(soak.quiet[1:]),
        "peak_memory_mb": round(soak.peak_bytes / 1e6, 1),
        "quiet_descriptors": [each.descriptors for each in soak.quiet],
        "quiet_threads": [each.threads for each in soak.quiet],
        "most_descriptors": max((each.descriptors for each in soak.steady), default=0),
        "most_threads": max((each.threads for each in soak.steady), default=0),
    }


def _slope(samples: Sequence[Sample]) -> float | None:
    """Of the memory in quiet moments, in MB an hour, by least squares; None for short runs.

    Python frees associations in waves of some megabytes, which minutes would stretch to a slope.
    """
    hours = [each.at_s / 3600 for each in samples]
    if hours[-1] - hours[0] < _SLOPE_HOURS:
        return None
    memory = [each.resident_bytes / 1e6 for each in samples]
    return round(statistics.linear_regression(hours, memory).slope, 1)
