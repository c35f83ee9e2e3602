"""Do studies leave the device as they should, and is there room for new ones?"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType

from edge_runtime.clock import SystemClock
from edge_runtime.config.settings import Settings
from edge_runtime.model.holding import HoldCause
from edge_runtime.process import database_path, spool_path
from edge_runtime.store.alarms import Alarm, AlarmCode, standing_alarms
from edge_runtime.store.holdings import last_sweep_wall_us
from edge_runtime.store.processes import Role
from tools.doctor.checks_storage import nearest_existing
from tools.doctor.findings import Advice, Context, Finding, failed, fine, warning, worst
from tools.doctor.own_device import is_visible, read_database, running_processes

SILENT_AFTER_S = 600
"""The node looks every minute, and right after a restart waits for the clock a while."""
_GIB = 1024**3
_DAY_S = 86_400

CAUSES: Mapping[HoldCause, Advice] = MappingProxyType(
    {
        HoldCause.RECEIVING: Advice(
            meaning="they are not complete yet",
            remedy="look whether the worker runs (`edge-triage doctor`, the check 'processes')",
        ),
        HoldCause.UNDECIDED: Advice(
            meaning="they wait for their analysis",
            remedy="look whether the worker runs, and into its log",
        ),
        HoldCause.UNDELIVERED: Advice(
            meaning="their results wait to be delivered",
            remedy="mend the receiver, whose check stands in this list",
        ),
        HoldCause.GIVEN_UP: Advice(
            meaning="their results were given up on the way",
            remedy="mend the receiver, then run `edge-triage resend`; where nobody wants these "
            "results any more, `edge-triage release` lets their studies go",
        ),
        HoldCause.PROMISED: Advice(
            meaning="storage commitment promised to keep them",
            remedy="wait, or make the disk larger; the promise is a setting of storage commitment",
        ),
        HoldCause.TOO_YOUNG: Advice(
            meaning="they were decided only just now",
            remedy="lower retention.least_keep_s, or make the disk larger",
        ),
        HoldCause.OTHER_FILES: Advice(
            meaning="the device holds no study",
            remedy="find out what else fills this disk, and move it away",
        ),
    }
)
"""What keeps studies here, and what to do."""


def check_retention(context: Context) -> Finding:
    """Do studies leave in time, and is there room?"""
    settings = context.settings
    room = judge_headroom(_free_bytes(settings), settings)
    path = database_path(settings)
    if not is_visible(path):
        return room
    try:
        with read_database(path) as connection:
            alarms = standing_alarms(connection)
            last_wall_us = last_sweep_wall_us(connection)
    except sqlite3.Error:
        return warning("the database cannot be read", "see the check 'database'")
    is_running = Role.NODE in running_processes(settings)
    silent_s = _silence_s(last_wall_us) if is_running else None
    return worst([judge_alarms(alarms), judge_silence(silent_s), room])


def judge_alarms(alarms: tuple[Alarm, ...]) -> Finding:
    """Say what keeps studies here, if retention raised an alarm."""
    findings = []
    for alarm in alarms:
        if alarm.code is AlarmCode.DISK_PRESSURE:
            advice = CAUSES[HoldCause(alarm.subject)]
            found = f"no study may leave to make room on the disk: {advice.meaning}"
            findings.append(failed(found, advice.remedy))
        elif alarm.code is AlarmCode.RETENTION_OVERDUE:
            advice = CAUSES[HoldCause(alarm.subject)]
            found = f"studies stay longer than retention.keep_s: {advice.meaning}"
            findings.append(warning(found, advice.remedy))
    return worst(findings) if findings else fine("studies leave in time")


def judge_silence(silent_s: float | None) -> Finding:
    """Judge how long ago a running node looked at its studies; None: it does not run."""
    if silent_s is None or silent_s <= SILENT_AFTER_S:
        return fine("retention works" if silent_s is not None else "the node does not run")
    return failed(
        f"the node runs, but retention last worked {silent_s / 60:.0f} minutes ago",
        "look for 'retention.failed' in the node's log, mend what it names, and restart the device",
    )


def judge_headroom(free_bytes: int, settings: Settings) -> Finding:
    """Judge the free space against what retention shall keep free."""
    target = settings.node.min_free_bytes + settings.retention.headroom_bytes
    days = settings.retention.keep_s / _DAY_S
    if free_bytes >= target:
        return fine(f"studies stay for {days:.3g} days (retention.keep_s)")
    return warning(
        f"{free_bytes / _GIB:.1f} GiB are free, fewer than {target / _GIB:.1f} GiB "
        f"(node.min_free_bytes + retention.headroom_bytes): studies leave before {days:.3g} days",
        "make the disk larger, or lower retention.keep_s to what it can hold",
    )


def _free_bytes(settings: Settings) -> int:
    state = os.statvfs(nearest_existing(spool_path(settings)))
    return state.f_bavail * state.f_frsize


def _silence_s(last_wall_us: int | None) -> float | None:
    if last_wall_us is None:
        return None  # the node has only just begun
    return (SystemClock().now().wall_us - last_wall_us) / 1e6
