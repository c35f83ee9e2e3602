"""Pushes studies of one size to a whole device, one after the other, and times each."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_node.scu import SendOutcome, SendResult, send_files
from edge_runtime.errors import DeviceFaultError
from edge_runtime.model.clock import Mark
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role
from edge_runtime.store.worklist import StudyDetail, find_study
from tools.bench.figures import Stage, stages_of
from tools.bench.heads import DrawnHead
from tools.bench.machine import ProcessCost, read_cost
from tools.bench.page_watch import PageWatch
from tools.demo.ports import LOOPBACK
from tools.demo.site import Site, SiteOptions, wait_until

_SCANNER_AE_TITLE = "BENCHSCANNER"
_STUDY_LIMIT_S = 120.0
_ARRIVED = {
    Channel.STRUCTURED_REPORT: frozenset({DeliveryState.SENT, DeliveryState.CONFIRMED}),
    Channel.FORWARD: frozenset({DeliveryState.SENT, DeliveryState.CONFIRMED}),
    Channel.TELEMETRY: frozenset({DeliveryState.CONFIRMED}),
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    slices: int
    studies: int
    warm_up: int
    """Studies before those that count."""
    associations: int
    images_per_s: float
    """The scanner's pace; 0 as fast as the sender and the node can."""
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedStudy:
    """One study's way."""

    stages_us: Mapping[Stage, int]
    outcome: str
    reason: str | None
    completion_reason: str | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All studies of one size, and what the device's processes took for them."""

    plan: Plan
    warm_up: tuple[TimedStudy, ...]
    studies: tuple[TimedStudy, ...]
    costs: Mapping[Role, ProcessCost]
    """Since the device started; processor time over all studies only."""
    reported_peak_rss_bytes: Mapping[Role, int]
    """As the device's own table of processes says."""


def measure(plan: Plan, say: Say) -> Measured:
    """Start a device of its own for this size, so that its peaks are this size's, and push.

    Raises:
        DeviceFaultError: the device does not start, store, decide, show or deliver.
        DicomNodeError: the node cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="edge-triage-bench-") as name:
        folder = Path(name)
        say(f"drawing a head of {plan.slices} slices ...")
        head = DrawnHead(folder, slices=plan.slices)
        say("starting a device ...")
        with (
            Site(folder / "site", SiteOptions(models=plan.models)) as site,
            PageWatch(LOOPBACK, site.web_port) as page,
            contextlib.closing(connect(site.database)) as connection,
        ):
            processes = {item.role: item.pid for item in site.processes()}
            before = _costs(processes)
            timed = []
            for number in range(plan.warm_up + plan.studies):
                timed.append(_time_study(site, page, connection, head.make_study(number), plan))
                total_ms = timed[-1].stages_us[Stage.TIME_TO_NOTIFICATION] / 1000
                say(f"  {number + 1}: {timed[-1].outcome} on the page after {total_ms:.0f} ms")
            reported = _reported_peaks(site)
            if processes != {item.role: item.pid for item in site.processes()}:
                raise DeviceFaultError("a process of the device was started again meanwhile")
            after = _costs(processes)
    return Measured(
        plan=plan,
        warm_up=tuple(timed[: plan.warm_up]),
        studies=tuple(timed[plan.warm_up :]),
        costs={
            role: ProcessCost(
                peak_rss_bytes=cost.peak_rss_bytes, cpu_s=cost.cpu_s - before[role].cpu_s
            )
            for role, cost in after.items()
        },
        reported_peak_rss_bytes=reported,
    )


def _time_study(
    site: Site,
    page: PageWatch,
    connection: sqlite3.Connection,
    study: tuple[str, tuple[Path, ...]],
    plan: Plan,
) -> TimedStudy:
    uid, paths = study
    answers = send_files(
        paths,
        site.node,
        calling_ae_title=_SCANNER_AE_TITLE,
        associations=plan.associations,
        on_result=_pace(plan.images_per_s),
    )
    if any(answer.outcome is not SendOutcome.STORED for answer in answers):
        raise DeviceFaultError(f"the node did not store every image; its log is {site.log}")
    detail = _await(connection, uid, _is_decided, f"no decision; the device's log is {site.log}")
    current = detail.study.current[0]
    flag = page.wait_for(
        detail.study.study_key, since_mono_us=_decided_mono_us(detail), limit_s=_STUDY_LIMIT_S
    )
    detail = _await(connection, uid, _is_delivered, f"not delivered; the log is {site.log}")
    reason = detail.study.completion_reason
    return TimedStudy(
        stages_us=stages_of(detail.stamps, detail.study.revision, flag.mono_us),
        outcome=current.state.value,
        reason=current.reason.value if current.reason else None,
        completion_reason=reason.value if reason else None,
        revision=detail.study.revision,
    )


def _pace(images_per_s: float) -> Callable[[SendResult], None] | None:
    """Hold the sender back after each image; it calls this from one thread at a time."""
    if images_per_s <= 0:
        return None
    never = threading.Event()
    started_s = time.monotonic()
    sent = 0

    def wait(_result: SendResult) -> None:
        nonlocal sent
        sent += 1
        never.wait(max(started_s + sent / images_per_s - time.monotonic(), 0))

    return wait


def _await(
    connection: sqlite3.Connection, uid: str, is_so: Callable[[StudyDetail], bool], otherwise: str
) -> StudyDetail:
    found: list[StudyDetail] = []

    def look() -> bool:
        detail = find_study(connection, uid)
        if detail is None or not is_so(detail):
            return False
        found.append(detail)
        return True

    wait_until(look, limit_s=_STUDY_LIMIT_S, otherwise=otherwise)
    return found[0]


def _is_decided(detail: StudyDetail) -> bool:
    current = detail.study.current
    return bool(current) and all(analysis.outcome is not None for analysis in current)


def _is_delivered(detail: StudyDetail) -> bool:
    return all(
        delivery.state in _ARRIVED[delivery.channel]
        for analysis in detail.study.current
        for delivery in analysis.deliveries
    )


def _decided_mono_us(detail: StudyDetail) -> int:
    return max(
        stamp.at.mono_us
        for stamp in detail.stamps
        if stamp.mark is Mark.DECIDED and stamp.revision == detail.study.revision
    )


def _costs(processes: Mapping[Role, int]) -> dict[Role, ProcessCost]:
    return {role: read_cost(pid) for role, pid in processes.items()}


def _reported_peaks(site: Site) -> dict[Role, int]:
    """Wait until each process has reported once more."""
    now_wall_us = time.time_ns() // 1000
    wait_until(
        lambda: all(item.beat_wall_us > now_wall_us for item in site.processes()),
        limit_s=_STUDY_LIMIT_S,
        otherwise=f"a process of the device fell silent; its log is {site.log}",
    )
    return {item.role: item.peak_rss_bytes for item in site.processes()}
