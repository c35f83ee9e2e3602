"""``python -m tools.bench.readers.child READER JOB LOG``: reads folders on order, one at a time.

Orders come as lines of JSON on standard input, answers leave so on standard output. What readers
print goes to the log, and is a part of the answer: a warning on a bad series is more than silence.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.bench.children import answer, own_output
from tools.bench.readers.answers import Read, Report
from tools.bench.readers.names import Job, ReaderName
from tools.bench.readers.roster import begin
from tools.bench.readers.truth import Truth
from tools.bench.readers.volumes import Judgement, Verdict, Volume, judge

_MOST_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One folder, once."""

    wall_s: float
    cpu_s: float
    """Of this process and those that it has waited for."""
    cpu_since_start_s: float
    """Likewise, with all that came before: imports and whatever else was read."""
    error: str
    """Why it refused, or ""."""
    said: str
    """The first line with a warning that it printed, else the first line."""


def main(arguments: list[str]) -> int:
    """Serve until standard input ends."""
    name, job, log = ReaderName(arguments[0]), Job(arguments[1]), Path(arguments[2])
    with own_output(log) as answers, begin(name, job) as read:
        answer(answers, {"ready": True})
        found: object = None
        for line in sys.stdin:
            order = json.loads(line)
            if "read" in order:
                found, reading = _read(read, Path(order["read"]), log)
                answer(answers, dataclasses.asdict(reading))
            else:
                answer(answers, _described(found, order["truth"]))
            if not order.get("keep"):
                # Other readers need the memory.
                found = None
                gc.collect()
    return 0


def _read(read: Read, folder: Path, log: Path) -> tuple[object, Reading]:
    found, error = None, ""
    printed = log.stat().st_size
    cpu_s, started_s = _cpu_s(), time.perf_counter()
    try:
        found = read(folder)
    except Exception as problem:  # noqa: BLE001  foreign readers raise anything at all
        error = f"{type(problem).__name__}: {problem}".splitlines()[0][:_MOST_TEXT]
    wall_s, cpu_since_start_s = time.perf_counter() - started_s, _cpu_s()
    sys.stdout.flush()
    sys.stderr.flush()
    said = _said(log.read_bytes()[printed:].decode("utf-8", "replace"))
    reading = Reading(
        wall_s=wall_s,
        cpu_s=cpu_since_start_s - cpu_s,
        cpu_since_start_s=cpu_since_start_s,
        error=error,
        said=said,
    )
    return found, reading


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _said(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    loud = [line for line in lines if "warning" in line.lower()]
    return next(iter(loud or lines), "")[:_MOST_TEXT]


def _described(found: object, truth: str) -> dict[str, object]:
    if isinstance(found, Volume):
        return dataclasses.asdict(judge(found, Truth.load(Path(truth))))
    if isinstance(found, Report):
        return dataclasses.asdict(found)
    if isinstance(found, np.ndarray):
        return {"shape": found.shape, "dtype": str(found.dtype)}
    return dataclasses.asdict(Judgement(verdict=Verdict.REFUSED))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
