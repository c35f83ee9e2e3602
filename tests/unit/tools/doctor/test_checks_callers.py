from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock

from dicom_node.admission import Call, Reason, RefusalReason
from dicom_node.errors import HandshakeFault
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.store.callers import CallerNotes
from edge_runtime.store.database import connect
from tools.doctor.checks_callers import check_callers
from tools.doctor.findings import Context, Status

MakeContext = Callable[..., Context]
_LEARNING = {"learning": True}


def _note(state_dir: Path, call: Call, reason: Reason, clock: Clock | None = None) -> None:
    with contextlib.closing(connect(state_dir / "triage.db")) as connection:
        notes = CallerNotes(connection, clock or SystemClock())
        notes.note(call, reason)
        notes.flush()


def _call(address: str = "192.0.2.10", title: str = "CANARY") -> Call:
    return Call(calling_ae_title=title, called_ae_title="EDGETRIAGE", address=address)


@pytest.mark.parametrize("node", [{}, _LEARNING])
def test_nobody_is_fine(make_context: MakeContext, node: dict[str, bool]) -> None:
    assert check_callers(make_context(node=node)).status is Status.OK


@pytest.mark.parametrize(
    ("title", "reason"),
    [("CANARY", RefusalReason.CALLING_AE_TITLE), ("", HandshakeFault.NO_CERTIFICATE)],
)
def test_unknown_callers_are_counted_and_not_named(
    make_context: MakeContext, state_dir: Path, title: str, reason: Reason
) -> None:
    _note(state_dir, _call(title=title), reason)
    found = check_callers(make_context(node=_LEARNING))
    assert found.status is Status.WARNING
    assert found.found.startswith("1 unknown callers")
    assert "edge-triage callers" in (found.remedy or "")
    assert "CANARY" not in repr(found)
    assert "192.0.2.10" not in repr(found)


def test_a_caller_that_is_listed_by_now_is_none(make_context: MakeContext, state_dir: Path) -> None:
    _note(state_dir, _call(), RefusalReason.CALLING_AE_TITLE)
    listed = {**_LEARNING, "callers": [{"ae_title": "CANARY"}]}
    assert check_callers(make_context(node=listed)).status is Status.OK


def test_the_doctor_itself_and_callers_of_long_ago_are_none(
    make_context: MakeContext, state_dir: Path
) -> None:
    clock = HandClock()
    clock.advance(time.time() - clock.now().wall_us / 1_000_000 - 8 * 86_400)
    _note(state_dir, _call(), RefusalReason.CALLING_AE_TITLE, clock)
    for address in ("127.0.0.1", "::1"):
        _note(state_dir, _call(address), RefusalReason.CALLING_AE_TITLE)
    assert check_callers(make_context(node=_LEARNING)).status is Status.OK


def test_a_damaged_database_is_left_to_its_own_check(
    make_context: MakeContext, state_dir: Path
) -> None:
    (state_dir / "triage.db").write_bytes(b"no database " * 1_000)
    found = check_callers(make_context(node=_LEARNING))
    assert found.status is Status.WARNING
    assert "check 'database'" in (found.remedy or "")
