from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.clock import SystemClock
from edge_runtime.model.holding import HoldCause
from edge_runtime.store.alarms import AlarmCode, raise_alarm
from edge_runtime.store.database import connect, transaction
from tools.doctor.checks_retention import (
    CAUSES,
    SILENT_AFTER_S,
    check_retention,
    judge_headroom,
    judge_silence,
)
from tools.doctor.findings import Context, Status

MakeContext = Callable[..., Context]
_NO_RESERVE = {"min_free_bytes": 0}
_SMALL = {"headroom_bytes": 67_108_864}


def test_a_device_that_never_ran_is_fine(make_context: MakeContext) -> None:
    finding = check_retention(make_context(node=_NO_RESERVE, retention=_SMALL))
    assert finding.status is Status.OK
    assert "7 days" in finding.found


def test_every_cause_has_advice() -> None:
    assert set(CAUSES) == set(HoldCause)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (AlarmCode.DISK_PRESSURE, Status.FAILED),
        (AlarmCode.RETENTION_OVERDUE, Status.WARNING),
        (AlarmCode.MODEL_REFUSED, Status.OK),
    ],
)
def test_what_keeps_studies_here_is_named_with_its_remedy(
    make_context: MakeContext, state_dir: Path, code: AlarmCode, status: Status
) -> None:
    with contextlib.closing(connect(state_dir / "triage.db")) as connection:
        with transaction(connection):
            raise_alarm(connection, code, SystemClock().now(), subject="given_up")
        finding = check_retention(make_context(node=_NO_RESERVE, retention=_SMALL))
    assert finding.status is status
    assert ("edge-triage release" in (finding.remedy or "")) == (status is not Status.OK)


def test_a_damaged_database_is_another_check_s_matter(
    make_context: MakeContext, state_dir: Path
) -> None:
    (state_dir / "triage.db").write_bytes(b"no database, and long enough to be looked at" * 100)
    finding = check_retention(make_context())
    assert finding.status is Status.WARNING
    assert "'database'" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("silent_s", "status"),
    [(None, Status.OK), (SILENT_AFTER_S, Status.OK), (SILENT_AFTER_S + 1, Status.FAILED)],
)
def test_a_running_node_whose_retention_is_silent_fails(
    silent_s: float | None, status: Status
) -> None:
    assert judge_silence(silent_s).status is status


def test_too_little_room_is_said_with_both_settings(make_context: MakeContext) -> None:
    settings = make_context(node={"min_free_bytes": 100}, retention=_SMALL).settings
    target = 100 + 67_108_864
    assert judge_headroom(target, settings).status is Status.OK
    short = judge_headroom(target - 1, settings)
    assert short.status is Status.WARNING
    assert "retention.headroom_bytes" in short.found
    assert "node.min_free_bytes" in short.found
