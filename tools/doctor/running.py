"""Runs every check at once, each within its limit, so that one that hangs or breaks costs no other.

The threads are daemons: a look-up of a name, or a disk that does not answer, cannot be cut short.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tools.doctor.findings import Check, Context, Finding, failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A check's name and what it found."""

    name: str
    finding: Finding


def run_checks(checks: Sequence[Check], context: Context) -> list[Answer]:
    """Run the checks; the answers come in their order, after the longest limit at the latest."""
    started_s = time.monotonic()
    boxes = [_start(check, context) for check in checks]
    return [
        Answer(name=check.name, finding=_wait(box, check, started_s + check.limit_s))
        for check, box in zip(checks, boxes, strict=True)
    ]


def _start(check: Check, context: Context) -> queue.SimpleQueue[Finding]:
    box: queue.SimpleQueue[Finding] = queue.SimpleQueue()

    def work() -> None:
        box.put(_run(check, context))

    threading.Thread(target=work, name=f"doctor-{check.name}", daemon=True).start()
    return box


def _run(check: Check, context: Context) -> Finding:
    try:
        return check.run(context)
    except Exception as error:  # noqa: BLE001 - a boundary: the other checks still have to answer
        # The text is left out: it may quote what the check read.
        return failed(
            f"the check itself broke ({type(error).__name__})",
            "report it with this line and the version of edge-triage",
        )


def _wait(box: queue.SimpleQueue[Finding], check: Check, deadline_s: float) -> Finding:
    try:
        return box.get(timeout=max(0.0, deadline_s - time.monotonic()))
    except queue.Empty:
        return failed(
            f"no result within {check.limit_s:g} s",
            f"what {check.name!r} asks does not answer: look at the network and its name server, "
            "or at the disk in the system's log",
        )
