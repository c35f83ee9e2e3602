"""What ``edge-triage bench pipeline`` says: one JSON object, or tables."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from edge_runtime.store.processes import Role
from tools.bench.figures import Spread, Stage, spread_of
from tools.bench.machine import Machine
from tools.bench.measure import Measured, TimedStudy

_MB = 1_000_000

METHOD = {
    "percentiles": "nearest rank: each is a measured value",
    "clock": "CLOCK_BOOTTIME of this machine for every stamp and for the page's reader",
    "flag": "the page's server-sent event with the decided study has been read by a client",
    "studies": "pushed one after the other; the next one waits for all deliveries of the last",
    "phantoms": "one head is drawn for each number of slices; every study is it with new UIDs and "
    "another invented patient; more than 400 slices are several series of it",
    "device": "a new one for each number of slices: node, worker, courier and page as they ship, "
    "with a PACS that stores to a folder and, where it is installed, a broker",
    "peak_rss": "VmHWM of each process, since its start, in MB of 1,000,000 bytes",
    "cpu": "processor time of each process over all studies, divided by their images",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound of the project for 400 or 2,000 slices, and what was measured."""

    name: str
    limit: float
    measured: float
    unit: str

    @property
    def is_met(self) -> bool:
        """At the bound or below it."""
        return self.measured <= self.limit


def goals_of(measured: Measured) -> tuple[Goal, ...]:
    """Compare with the bounds that hold for this number of slices."""
    slices = measured.plan.slices
    goals = []
    if slices == 400:  # noqa: PLR2004 - the size that the goals name
        after = _spread(measured.studies, Stage.AFTER_COMPLETION)
        completion = _spread(measured.studies, Stage.COMPLETION)
        goals += [
            Goal(name="after completion, median", limit=300, measured=after.median, unit="ms"),
            Goal(name="after completion, p95", limit=1000, measured=after.p95, unit="ms"),
            Goal(name="completion, median", limit=200, measured=completion.median, unit="ms"),
        ]
    limit_mb = {400: 300, 2000: 450}.get(slices)
    if limit_mb is not None:
        peak_mb = measured.costs[Role.WORKER].peak_rss_bytes / _MB
        goals.append(
            Goal(name="worker's peak RSS", limit=limit_mb, measured=round(peak_mb, 1), unit="MB")
        )
    return tuple(goals)


def report(machine: Machine, runs: Sequence[Measured]) -> dict[str, object]:
    """Return everything that was measured."""
    return {
        "benchmark": "pipeline",
        "machine": dataclasses.asdict(machine),
        "method": METHOD,
        "runs": [_run(measured) for measured in runs],
    }


def _run(measured: Measured) -> dict[str, object]:
    plan, studies = measured.plan, measured.studies
    images = plan.slices * (plan.warm_up + plan.studies)
    return {
        "slices": plan.slices,
        "studies": len(studies),
        "warm_up_studies": plan.warm_up,
        "associations": plan.associations,
        "images_per_s_asked": plan.images_per_s or None,
        "models": list(plan.models),
        "outcomes": _counts([study.outcome for study in studies]),
        "reasons": _counts([study.reason for study in studies]),
        "completion_reasons": _counts([study.completion_reason for study in studies]),
        "reopened": sum(study.revision > 1 for study in studies),
        "ms": {
            stage.value: dataclasses.asdict(_spread(studies, stage))
            for stage in Stage
            if _values(studies, stage)
        },
        "first_study_ms": _first(measured),
        "images_per_s": dataclasses.asdict(_rate(measured)) if plan.slices > 1 else None,
        "processes": {
            role.value: {
                "peak_rss_mb": round(cost.peak_rss_bytes / _MB, 1),
                "reported_peak_rss_mb": round(measured.reported_peak_rss_bytes[role] / _MB, 1),
                "cpu_ms_per_image": round(cost.cpu_s * 1000 / images, 3),
            }
            for role, cost in measured.costs.items()
        },
        "goals": [{**dataclasses.asdict(goal), "met": goal.is_met} for goal in goals_of(measured)],
    }


def _first(measured: Measured) -> float:
    first = (*measured.warm_up, *measured.studies)[0]
    return first.stages_us[Stage.TIME_TO_NOTIFICATION] / 1000


def _rate(measured: Measured) -> Spread:
    """Images per second while a study arrives: intervals between images over their time."""
    return spread_of(
        [
            round((measured.plan.slices - 1) * 1e6 / study.stages_us[Stage.RECEIVE], 1)
            for study in measured.studies
        ]
    )


def _spread(studies: Sequence[TimedStudy], stage: Stage) -> Spread:
    return spread_of(_values(studies, stage))


def _values(studies: Sequence[TimedStudy], stage: Stage) -> list[float]:
    return [study.stages_us[stage] / 1000 for study in studies if stage in study.stages_us]


def _counts(values: Sequence[str | None]) -> dict[str, int]:
    return dict(Counter(value for value in values if value is not None))


def show(console: Console, machine: Machine, runs: Sequence[Measured]) -> None:
    """Print tables."""
    load = ", ".join(f"{value:.1f}" for value in machine.load_average)
    console.print(
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_mb} MB, kernel {machine.kernel}, "
        f"Python {machine.python}, ONNX Runtime {machine.onnxruntime}; load before: {load}"
    )
    for measured in runs:
        console.print(_stage_table(measured), _process_table(measured))
        for goal in goals_of(measured):
            console.print(
                f"  {'met ' if goal.is_met else 'MISSED'} {goal.name}: {goal.measured:.1f} "
                f"{goal.unit}, at most {goal.limit:.0f} {goal.unit}"
            )
    console.print(f"Percentiles by {METHOD['percentiles']}. Phantoms: {METHOD['phantoms']}.")


def _stage_table(measured: Measured) -> Table:
    plan, studies = measured.plan, measured.studies
    outcomes = ", ".join(
        f"{count} {word}" for word, count in _counts([study.outcome for study in studies]).items()
    )
    rate = f", {_rate(measured).median:.0f} images/s" if plan.slices > 1 else ""
    table = Table(title=f"{plan.slices} slices, {outcomes}{rate}", title_justify="left")
    table.add_column("ms")
    for heading in ("median", "p95", "lowest", "highest", "studies"):
        table.add_column(heading, justify="right")
    for stage in Stage:
        if values := _values(studies, stage):
            found = spread_of(values)
            table.add_row(
                stage.words,
                *(f"{x:.1f}" for x in (found.median, found.p95, found.lowest, found.highest)),
                str(found.count),
            )
    return table


def _process_table(measured: Measured) -> Table:
    images = measured.plan.slices * (measured.plan.warm_up + measured.plan.studies)
    table = Table("process")
    table.add_column("peak RSS, MB", justify="right")
    table.add_column("CPU ms an image", justify="right")
    for role, cost in measured.costs.items():
        table.add_row(
            role.value,
            f"{cost.peak_rss_bytes / _MB:.1f}",
            f"{cost.cpu_s * 1000 / images:.2f}",
        )
    return table
