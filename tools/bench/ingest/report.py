"""What ``edge-triage bench ingest`` says: one JSON object, or tables; pure but for the console."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tools.bench.ingest.loads import LOADS
from tools.bench.ingest.measure import Measured, Plan
from tools.bench.ingest.names import LoadName, ReceiverName
from tools.bench.ingest.rates import (
    Cell,
    Goal,
    Ratio,
    Way,
    cells_of,
    faults_of,
    goals_of,
    is_excused,
    ratios_of,
)
from tools.bench.ingest.receivers import KINDS
from tools.bench.machine import Machine

METHOD = {
    "interleaving": "in each round every receiver takes every sender's run; another receiver "
    "begins each round; all disks are synced between runs, and one short run of each receiver "
    "before the first round does not count",
    "medians": "nearest rank over the rounds: each is a measured value",
    "ratios": "our rate over the other's in the same round, then the median",
    "synced": "the same time and that of a sync of all disks after the last answer: what a "
    "receiver that does not sync leaves to be done",
    "blast": "a process of ours: one thread for each association, objects encoded beforehand, one "
    "object at a time; the time runs from the first accepted association to the last answer",
    "storescu": "dcmtk's, one process for each association; the time holds the start of the "
    "processes and the associations",
    "uids": "fresh SOP Instance, Series and Study Instance UIDs in every run; pixels are noise",
    "cpu": "user and system time of the receiver and its children over all runs of a cell, divided "
    "by their objects",
    "peak_rss": "VmHWM of the largest process of the receiver, set back before each run where the "
    "kernel allows it, in MB of 1,000,000 bytes",
    "nagle": "dcmtk's programs and Orthanc run with TCP_NODELAY=1; Debian's build of storescp "
    "otherwise stores 22 CT slices a second on an association, waiting for acknowledgements",
    "counted": "after every run files, rows or statistics say how many objects the receiver holds",
}


def report(
    machine: Machine, software: Mapping[str, str], plan: Plan, measured: Measured
) -> dict[str, object]:
    """Return everything that was measured."""
    cells, ratios = cells_of(measured.runs), ratios_of(measured.runs)
    return {
        "benchmark": "ingest",
        "machine": dataclasses.asdict(machine),
        "software": dict(software),
        "method": METHOD,
        "rounds": plan.rounds,
        "loads": {
            name.value: {
                "title": LOADS[name].title,
                "instances_a_run": plan.instances_of(LOADS[name]),
            }
            for name in plan.loads
        },
        "receivers": {
            name.value: {"title": KINDS[name].title, "durable": KINDS[name].is_durable}
            for name in plan.receivers
        },
        "cells": [_cell(cell) for cell in cells],
        "ratios": [
            {
                **_way(ratio.way),
                "to": ratio.other.value,
                "ratio": dataclasses.asdict(ratio.ratio),
                "synced_ratio": dataclasses.asdict(ratio.synced_ratio),
            }
            for ratio in ratios
        ],
        "idle": [dataclasses.asdict(found) for found in measured.idle],
        "goals": [
            {**dataclasses.asdict(goal), "direction": goal.direction.value, "met": goal.is_met}
            for goal in goals_of(cells, ratios, measured.idle)
        ],
        "faults": [
            {
                **_way(run.way),
                "receiver": run.receiver.value,
                "round": run.round,
                "fault": run.fault,
                "excused": is_excused(run),
            }
            for run in measured.runs
            if run.fault
        ],
        "nothing_lost": not faults_of(measured.runs),
    }


def _way(way: Way) -> dict[str, object]:
    return {
        "load": way.load.value,
        "sender": way.sender.value,
        "associations": way.associations,
    }


def _cell(cell: Cell) -> dict[str, object]:
    return {
        **_way(cell.way),
        "receiver": cell.receiver.value,
        "instances_per_s": dataclasses.asdict(cell.instances_per_s),
        "synced_per_s": dataclasses.asdict(cell.synced_per_s),
        "mb_per_s": dataclasses.asdict(cell.mb_per_s),
        "cpu_ms_per_instance": cell.cpu_ms_per_instance,
        "sender_cpu_ms_per_instance": cell.sender_cpu_ms_per_instance,
        "peak_rss_mb": cell.peak_rss_mb,
    }


def show(
    console: Console,
    machine: Machine,
    software: Mapping[str, str],
    plan: Plan,
    measured: Measured,
) -> None:
    """Print tables."""
    cells, ratios = cells_of(measured.runs), ratios_of(measured.runs)
    load = ", ".join(f"{value:.1f}" for value in machine.load_average)
    versions = ", ".join(f"{name} {version}" for name, version in software.items())
    console.print(
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_mb} MB, kernel {machine.kernel}, "
        f"Python {machine.python}, {versions}; load before: {load}",
        markup=False,
    )
    for name in plan.loads:
        for table in (_rate_table(plan, name, cells), _cost_table(plan, name, cells)):
            console.print(table)
        if any(ratio.way.load is name for ratio in ratios):
            console.print(_ratio_table(name, ratios))
    for idle in measured.idle:
        console.print(
            f"idle with {idle.associations} open associations: {idle.cpu_percent:.2f} % of a core"
        )
    for goal in goals_of(cells, ratios, measured.idle):
        console.print(goal_line(goal), markup=False)
    for run in measured.runs:
        if run.fault:
            word = "cannot" if is_excused(run) else "LOST OR REFUSED"
            console.print(
                f"  {word} {run.receiver.value} {_way(run.way)}: {run.fault}", markup=False
            )


def goal_line(goal: Goal) -> str:
    """Return whether a goal was met, and by how much."""
    return (
        f"  {'met   ' if goal.is_met else 'MISSED'} {goal.name}: {goal.measured:.2f} {goal.unit}, "
        f"{goal.direction.value} {goal.limit:g}"
    )


def _columns(cells: Sequence[Cell], load: LoadName) -> list[Way]:
    return sorted({cell.way for cell in cells if cell.way.load is load})


def _rate_table(plan: Plan, load: LoadName, cells: Sequence[Cell]) -> Table:
    table = Table(
        "instances/s",
        title=f"{LOADS[load].title}, {plan.instances_of(LOADS[load])} a run",
        caption="median, lowest–highest, MB/s, and the rate until all is on the disk; * durable",
        title_justify="left",
        caption_justify="left",
        show_lines=True,
    )
    ways = _columns(cells, load)
    for way in ways:
        table.add_column(f"{way.sender.value} {way.associations}", justify="right")
    found = {(cell.receiver, cell.way): cell for cell in cells}
    for name in plan.receivers:
        texts = [_rate(found.get((name, way))) for way in ways]
        table.add_row(_title(name), *texts)
    return table


def _rate(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    rate = cell.instances_per_s
    return (
        f"{rate.median:,.4g}\n{rate.lowest:,.4g}–{rate.highest:,.4g}\n"
        f"{cell.mb_per_s.median:,.0f} MB/s\n{cell.synced_per_s.median:,.4g} synced"
    )


def _cost_table(plan: Plan, load: LoadName, cells: Sequence[Cell]) -> Table:
    table = Table("CPU ms an instance / peak RSS MB")
    ways = _columns(cells, load)
    for way in ways:
        table.add_column(f"{way.sender.value} {way.associations}", justify="right")
    found = {(cell.receiver, cell.way): cell for cell in cells}
    for name in plan.receivers:
        row = [found.get((name, way)) for way in ways]
        table.add_row(
            _title(name),
            *(
                "–" if cell is None else f"{cell.cpu_ms_per_instance:.2f} / {cell.peak_rss_mb:.0f}"
                for cell in row
            ),
        )
    return table


def _ratio_table(load: LoadName, ratios: Sequence[Ratio]) -> Table:
    table = Table(
        "times as fast as",
        title="our rate over the other's: until the last answer / until all is on the disk",
        title_justify="left",
    )
    mine = [ratio for ratio in ratios if ratio.way.load is load]
    ways = sorted({ratio.way for ratio in mine})
    for way in ways:
        table.add_column(f"{way.sender.value} {way.associations}", justify="right")
    found = {(ratio.other, ratio.way): ratio for ratio in mine}
    for name in dict.fromkeys(ratio.other for ratio in mine):
        row = [found.get((name, way)) for way in ways]
        table.add_row(
            _title(name),
            *(
                "–"
                if ratio is None
                else f"{ratio.ratio.median:.2f} / {ratio.synced_ratio.median:.2f}"
                for ratio in row
            ),
        )
    return table


def _title(name: ReceiverName) -> str:
    return f"{name.value}{' *' if KINDS[name].is_durable else ''}"
