"""What a step finds, as rows that outlive the process that found them, and the table of them.

A step that crashes the process loses nothing that it found before: each row is a line of a file,
written at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

_WIDEST = 110
_WIDEST_SHORT = 70


class Verdict(str, Enum):
    """What a row says."""

    OK = "ok"
    """It does what it must."""
    FAILED = "FAILED"
    """It does not: the check as a whole has failed."""
    REACHED = "goal reached"
    MISSED = "goal missed"
    """Slower than we want; nothing is wrong."""
    FIGURE = ""
    """A measurement without a goal, or a fact."""
    NOT_HERE = "not here"
    """What it needs is not on this machine; the value says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finding."""

    step: str
    subject: str
    """What was looked at: a library, a package in a precision, a peer."""
    what: str
    value: str
    goal: str = ""
    verdict: Verdict = Verdict.FIGURE
    is_key: bool = False
    """A figure that the short table has too."""


_ALWAYS_SHOWN = frozenset({Verdict.FAILED, Verdict.REACHED, Verdict.MISSED})


class RowFile:
    """Takes the rows of one step down."""

    def __init__(self, path: Path, step: str) -> None:
        self._path = path
        self._step = step

    def add(
        self,
        subject: str,
        what: str,
        value: str,
        *,
        goal: str = "",
        verdict: Verdict = Verdict.FIGURE,
        is_key: bool = False,
    ) -> None:
        """Write a row."""
        row = Row(
            step=self._step,
            subject=subject,
            what=what,
            value=value,
            goal=goal,
            verdict=verdict,
            is_key=is_key,
        )
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def check(self, subject: str, what: str, holds: bool, value: str = "") -> None:  # noqa: FBT001 - a claim
        """Write whether a claim holds."""
        self.add(subject, what, value, verdict=Verdict.OK if holds else Verdict.FAILED)

    def compare(
        self,
        subject: str,
        what: str,
        value: float,
        *,
        unit: str,
        least: float = 0.0,
        most: float = 0.0,
    ) -> None:
        """Write a measurement beside its goal: at least ``least``, or at most ``most``."""
        reached = value >= least if least else value <= most
        self.add(
            subject,
            what,
            f"{number(value)} {unit}".strip(),
            goal=f">= {number(least)}" if least else f"<= {number(most)}",
            verdict=Verdict.REACHED if reached else Verdict.MISSED,
        )

    def not_here(self, subject: str, reason: str) -> None:
        """Write that something is not on this machine."""
        self.add(subject, "", " ".join(reason.split()), verdict=Verdict.NOT_HERE)


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a file; none where it was never written."""
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    # The last line may be torn, where the process was killed in it.
    return tuple(row for row in map(_parsed, lines) if row is not None)


def _parsed(line: str) -> Row | None:
    try:
        members = json.loads(line)
    except ValueError:
        return None
    return Row(**{**members, "verdict": Verdict(members["verdict"])})


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - as above


def table(rows: Sequence[Row], *, widest: int = _WIDEST) -> str:
    """All rows as a Markdown table whose columns stand in line."""
    cells = [("step", "subject", "what", "value", "goal", "verdict")]
    cells += [
        (row.step, row.subject, row.what, _cut(row.value, widest), row.goal, row.verdict.value)
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(each, widths) for each in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def short_table(rows: Sequence[Row]) -> str:
    """What failed, goals, key figures, and what is not here; checks that hold are counted only."""
    steps = list(dict.fromkeys(row.step for row in rows))
    return table([row for step in steps for row in _shortened(step, rows)], widest=_WIDEST_SHORT)


def _shortened(step: str, rows: Sequence[Row]) -> list[Row]:
    own = [row for row in rows if row.step == step]
    holds = sum(row.verdict is Verdict.OK for row in own)
    checks = holds + sum(row.verdict is Verdict.FAILED for row in own)
    short = [row for row in own if row.is_key or row.verdict in _ALWAYS_SHOWN]
    if checks:
        short.append(Row(step=step, subject="checks", what="hold", value=f"{holds} of {checks}"))
    # One line for each reason, however many it keeps away.
    missing: dict[str, list[Row]] = {}
    for row in own:
        if row.verdict is Verdict.NOT_HERE:
            missing.setdefault(row.value, []).append(row)
    for alike in missing.values():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        short.append(replace(alike[0], subject=f"{alike[0].subject}{more}"))
    return short


def summary(rows: Iterable[Row]) -> str:
    """One line: how many rows say what."""
    counts = dict.fromkeys(Verdict, 0)
    for row in rows:
        counts[row.verdict] += 1
    told = [
        f"{counts[verdict]} {verdict.value}"
        for verdict in Verdict
        if counts[verdict] and verdict is not Verdict.FIGURE
    ]
    return ", ".join([*told, f"{counts[Verdict.FIGURE]} figures"])


def _cut(value: str, widest: int) -> str:
    value = value.replace("|", "/")
    return value if len(value) <= widest else value[: widest - 3] + "..."


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"
