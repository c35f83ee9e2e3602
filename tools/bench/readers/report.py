"""What the benchmarks of readers say: one JSON object, or tables; pure but for the console."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tools.bench.ingest.report import goal_line
from tools.bench.machine import Machine
from tools.bench.readers.figures import (
    Case,
    Cell,
    Found,
    Ratio,
    cells_of,
    goals_of,
    is_trait_case,
    ratios_of,
    words_of,
)
from tools.bench.readers.measure import Measured, Plan
from tools.bench.readers.names import Job, ReaderName
from tools.bench.readers.roster import ROSTER, missing_of, version_of

METHOD = {
    "processes": "each reader is a process of its own in which everything is imported and every "
    "series was read once; of dcm2niix each reading is a new process, whose start is in its time",
    "cold": "a process is started for each reading of a native series: its time runs from its "
    "start to the report, imports and the model's loading included",
    "interleaving": "in each round every reader reads the series; another one begins each round",
    "medians": "nearest rank over the rounds: each is a measured value",
    "ratios": "the peer's time over ours in the same round, then the median",
    "cache": "files lie in the page cache: they were read just before",
    "cpu": "user and system time of the reader and its children",
    "peak_rss": "VmHWM of the reader's largest process during its readings, set back before each "
    "where the kernel allows it, in MB of 1,000,000 bytes; imported libraries are in it",
    "truth": "the stored values that the series was made of, in Hounsfield units, and the corners "
    "of every slice; exact is within what float32 rounds off (2^-12 HU), and 0.01 mm",
    "phantoms": "a few slices of a head are drawn; longer series repeat them, each rolled by "
    "another number of rows",
    "ours": "headers, gate, pixels and rescale, or the steps of a package; one thread; a volume is "
    "read to memory that is kept from one series to the next",
    "bare": "pydicom, SimpleITK's linear resampling, ONNX Runtime and highdicom without any check; "
    "ours reads every header twice here, which the device does not",
}


def report(plan: Plan, measured: Measured) -> dict[str, object]:
    """Return everything that was measured."""
    ratios = ratios_of(measured.runs)
    return {
        "method": METHOD,
        "rounds": plan.rounds,
        "readers": {
            name.value: {"title": ROSTER[name].title, "version": version_of(name)}
            for name in _names(plan)
        },
        "missing": [name.value for name in _missing(plan)],
        "cells": [
            {
                **_case(cell.case),
                "reader": cell.reader.value,
                "wall_ms": dataclasses.asdict(cell.wall_ms),
                "cpu_ms": dataclasses.asdict(cell.cpu_ms),
                "peak_rss_mb": cell.peak_rss_mb,
            }
            for cell in cells_of(measured.runs)
        ],
        "ratios": [
            {
                **_case(ratio.case),
                "to": ratio.other.value,
                "ratio": dataclasses.asdict(ratio.ratio),
                "cpu_ratio": dataclasses.asdict(ratio.cpu_ratio),
            }
            for ratio in ratios
        ],
        "found": [
            {
                **_case(each.case),
                "reader": each.reader.value,
                "right": each.is_right,
                "error": each.error,
                "said": each.said,
                **each.answer,
            }
            for each in measured.found
        ],
        "goals": [
            {**dataclasses.asdict(goal), "direction": goal.direction.value, "met": goal.is_met}
            for goal in goals_of(ratios, measured.found)
        ],
    }


def _names(plan: Plan) -> tuple[ReaderName, ...]:
    return tuple(dict.fromkeys(name for names in plan.readers.values() for name in names))


def _missing(plan: Plan) -> tuple[ReaderName, ...]:
    return tuple(dict.fromkeys(name for job in plan.readers for name in missing_of(job)))


def _case(case: Case) -> dict[str, object]:
    return {
        "job": case.job.value,
        "slices": case.kind.slices,
        "syntax": case.kind.syntax.value,
        "trait": case.kind.trait.value,
    }


def show(console: Console, machine: Machine, plan: Plan, measured: Measured) -> None:
    """Print tables."""
    load = ", ".join(f"{value:.1f}" for value in machine.load_average)
    versions = ", ".join(f"{name.value} ({version_of(name)})" for name in _names(plan))
    missing = ", ".join(name.value for name in _missing(plan)) or "none"
    console.print(
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_mb} MB, kernel {machine.kernel}, "
        f"Python {machine.python}; {versions}; not installed: {missing}; load before: {load}",
        markup=False,
    )
    cells, ratios = cells_of(measured.runs), ratios_of(measured.runs)
    for job in plan.readers:
        console.print(_time_table(job, cells), _ratio_table(job, ratios))
    console.print(_found_table(measured.found))
    for goal in goals_of(ratios, measured.found):
        console.print(goal_line(goal), markup=False)


def _time_table(job: Job, cells: Sequence[Cell]) -> Table:
    mine = [cell for cell in cells if cell.case.job is job]
    table = Table(f"{job.value}: ms")
    table.caption = "median, lowest–highest, processor time; peak RSS in MB"
    for case in dict.fromkeys(cell.case for cell in mine):
        table.add_column(f"{case.kind.slices}\n{case.kind.syntax.value}", justify="right")
    for reader in dict.fromkeys(cell.reader for cell in mine):
        table.add_row(
            reader.value,
            *(_time(found, reader) for found in _columns(mine)),
        )
    return table


def _columns(cells: Sequence[Cell]) -> list[list[Cell]]:
    return [
        [cell for cell in cells if cell.case == case]
        for case in dict.fromkeys(cell.case for cell in cells)
    ]


def _time(cells: Sequence[Cell], reader: ReaderName) -> str:
    for cell in cells:
        if cell.reader is reader:
            wall = cell.wall_ms
            return (
                f"{wall.median:,.0f}\n{wall.lowest:,.0f}–{wall.highest:,.0f}\n"
                f"{cell.cpu_ms.median:,.0f} CPU\n{cell.peak_rss_mb:,.0f} MB"
            )
    return "–"


def _ratio_table(job: Job, ratios: Sequence[Ratio]) -> Table:
    table = Table("times as fast as", title_justify="left")
    mine = [ratio for ratio in ratios if ratio.case.job is job]
    cases = list(dict.fromkeys(ratio.case for ratio in mine))
    for case in cases:
        table.add_column(f"{case.kind.slices}\n{case.kind.syntax.value}", justify="right")
    table.caption = "time / processor time"
    found = {(ratio.other, ratio.case): ratio for ratio in mine}
    for other in dict.fromkeys(ratio.other for ratio in mine):
        row = [found.get((other, case)) for case in cases]
        texts = [
            "–" if each is None else f"{each.ratio.median:.1f} / {each.cpu_ratio.median:.1f}"
            for each in row
        ]
        table.add_row(other.value, *texts)
    return table


def _found_table(found: Sequence[Found]) -> Table:
    table = Table(title="what each does with a series", title_justify="left", show_lines=True)
    table.add_column("reader")
    wanted = [each for each in found if is_trait_case(each.case)] or list(found)
    cases = list(dict.fromkeys(each.case for each in wanted))
    for case in cases:
        table.add_column(f"{case.kind.trait.value}\n{case.kind.syntax.value}")
    by_place = {(each.reader, each.case): each for each in wanted}
    for reader in dict.fromkeys(each.reader for each in wanted):
        table.add_row(reader.value, *(words_of(by_place.get((reader, case))) for case in cases))
    return table
