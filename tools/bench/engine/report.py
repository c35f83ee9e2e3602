"""What ``edge-triage bench engine`` says: one JSON object, or tables; pure but for the console."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from rich import box
from rich.console import Console
from rich.table import Table

from tools.bench.engine.answers import Layer
from tools.bench.engine.measure import Measured, Plan, Run
from tools.bench.engine.names import RunnerName
from tools.bench.figures import nearest_rank
from tools.bench.machine import Machine

_MB = 1_000_000
_PERCENTS = (50, 95, 99)
_SHOWN_LAYERS = 12
_CPU_LIMIT = 1.05
"""Of our time over that of a bare loop (the project's goal on the processor)."""
_GPU_LIMIT = 0.7
"""Of our latency over that of ONNX Runtime's CUDA provider."""

METHOD = {
    "processes": "each runner is a process of its own that has loaded the model and run every "
    "golden input once",
    "interleaving": "in each round every runner runs every batch; another runner begins each round",
    "latency": "of one call, inputs in the host's memory to outputs in the host's memory",
    "percentiles": "nearest rank over all runs of all rounds: each is a measured value",
    "throughput": "items over wall time, one call after the other, and streamed where copies may "
    "overlap with computing; the median of the rounds",
    "cpu": "processor time of all threads of the process, over the items",
    "peak_rss": "VmHWM of the process, libraries included, in MB of 1,000,000 bytes",
    "copies": "bytes to the GPU and back",
    "power": "mean of each rail that the kernel shows, over the runs; rails may contain each other",
    "layers": "of the largest batch: ONNX Runtime's own profile of the bare loop, median of 20 "
    "runs, and TensorRT's of ours; profiling slows both down",
    "ratios": "our median latency, and processor time, over the peer's in the same round; then the "
    "median of the rounds",
    "deviation": "the largest of any golden output: who computes something else is no peer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One runner on one batch, over all rounds."""

    runner: RunnerName
    batch: int
    runs: int
    latency_us: dict[str, int]
    """By percentile, and the lowest and highest."""
    items_per_s: float
    streamed_items_per_s: float | None
    cpu_ms_per_item: float
    watts: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One of ours beside one peer; below 1 ours takes less."""

    ours: RunnerName
    peer: RunnerName
    batch: int
    latency: float
    cpu: float
    limit: float | None
    """The project's goal for the latency, where there is one."""

    @property
    def is_met(self) -> bool | None:
        """At the limit or below it."""
        return None if self.limit is None else self.latency <= self.limit


def cells_of(runs: Sequence[Run]) -> tuple[Cell, ...]:
    """Sum up, by runner and batch, in the order in which they were measured."""
    return tuple(
        _cell([run for run in runs if (run.runner, run.batch) == key])
        for key in dict.fromkeys((run.runner, run.batch) for run in runs)
    )


def _cell(runs: Sequence[Run]) -> Cell:
    batch = runs[0].batch
    latencies = [value for run in runs for value in run.timed.latencies_us]
    streamed = [
        run.timed.streamed_items_per_s for run in runs if run.timed.streamed_items_per_s is not None
    ]
    items = batch * len(latencies)
    rails = dict.fromkeys(name for run in runs for name in run.watts)
    return Cell(
        runner=runs[0].runner,
        batch=batch,
        runs=len(latencies),
        latency_us={
            **{f"p{percent}": round(nearest_rank(latencies, percent)) for percent in _PERCENTS},
            "lowest": min(latencies),
            "highest": max(latencies),
        },
        items_per_s=round(median(_rate(run) for run in runs), 1),
        streamed_items_per_s=round(median(streamed), 1) if streamed else None,
        cpu_ms_per_item=round(sum(run.timed.cpu_s for run in runs) * 1000 / items, 4),
        watts={
            name: round(fmean(run.watts[name] for run in runs if name in run.watts), 2)
            for name in rails
        },
    )


def _rate(run: Run) -> float:
    return run.batch * len(run.timed.latencies_us) / run.timed.wall_s


def ratios_of(runs: Sequence[Run]) -> tuple[Ratio, ...]:
    """Compare each of ours with each peer that does the same on the same hardware."""
    batches = dict.fromkeys(run.batch for run in runs)
    names = dict.fromkeys(run.runner for run in runs)
    return tuple(
        ratio
        for ours in names
        if ours.backend is not None
        for peer in names
        if _is_comparable(ours, peer)
        for batch in batches
        if (ratio := _ratio(runs, ours, peer, batch)) is not None
    )


def _is_comparable(ours: RunnerName, peer: RunnerName) -> bool:
    """Processor with processor; on a GPU ours also with ours, which is the library's provider."""
    if ours is RunnerName.ONNXRUNTIME:
        return peer in {RunnerName.BARE, RunnerName.TORCH, RunnerName.TORCH_COMPILED}
    return peer is not ours and (
        peer is RunnerName.ONNXRUNTIME_CUDA or (peer.backend is None and "cuda" in peer.value)
    )


def _ratio(runs: Iterable[Run], ours: RunnerName, peer: RunnerName, batch: int) -> Ratio | None:
    rounds: dict[int, dict[RunnerName, Run]] = {}
    for run in runs:
        if run.batch == batch:
            rounds.setdefault(run.round, {})[run.runner] = run
    pairs = [(each[ours], each[peer]) for each in rounds.values() if ours in each and peer in each]
    if not pairs:
        return None
    return Ratio(
        ours=ours,
        peer=peer,
        batch=batch,
        latency=round(median(_median_us(a) / _median_us(b) for a, b in pairs), 3),
        cpu=round(median(_cpu_us(a) / _cpu_us(b) for a, b in pairs), 3),
        limit=_limit(ours, peer),
    )


def _limit(ours: RunnerName, peer: RunnerName) -> float | None:
    if (ours, peer) == (RunnerName.ONNXRUNTIME, RunnerName.BARE):
        return _CPU_LIMIT
    is_plan = ours in {RunnerName.TENSORRT, RunnerName.TENSORRT_RTX}
    return _GPU_LIMIT if is_plan and peer is RunnerName.ONNXRUNTIME_CUDA else None


def _median_us(run: Run) -> float:
    return max(nearest_rank(run.timed.latencies_us, 50), 1)


def _cpu_us(run: Run) -> float:
    return max(run.timed.cpu_s * 1e6 / len(run.timed.latencies_us), 1)


def report(plan: Plan, measured: Measured, model: str) -> dict[str, object]:
    """Return everything that was measured of one model."""
    return {
        "model": model,
        "method": METHOD,
        "threads": plan.job.threads,
        "precision": plan.job.precision,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "runners": {
            name.value: {
                **dataclasses.asdict(ready),
                "what": name.words,
                "peak_rss_mb": round(measured.peak_rss_bytes[name] / _MB, 1),
            }
            for name, ready in measured.ready.items()
        },
        "left_out": {name.value: why for name, why in measured.refused.items()},
        "cells": [dataclasses.asdict(cell) for cell in cells_of(measured.runs)],
        "ratios": [
            {**dataclasses.asdict(ratio), "met": ratio.is_met} for ratio in ratios_of(measured.runs)
        ],
        "layers": {
            name.value: [dataclasses.asdict(layer) for layer in layers]
            for name, layers in measured.layers.items()
            if layers
        },
    }


def show_machine(console: Console, machine: Machine) -> None:
    """Say on what it was measured."""
    load = ", ".join(f"{value:.1f}" for value in machine.load_average)
    console.print(
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_mb} MB, kernel {machine.kernel}, "
        f"Python {machine.python}; load before: {load}"
    )


def show(console: Console, plan: Plan, measured: Measured, model: str) -> None:
    """Print tables of one model."""
    console.print(
        f"\n{model}, threads: {plan.job.threads}, on a GPU: {plan.job.precision}, "
        f"{plan.rounds} rounds of {plan.seconds:g} s"
    )
    console.print(_times(measured), _runners(measured))
    for name, ready in measured.ready.items():
        console.print(f"{name.value}: {ready.software}; {name.words}", markup=False)
    for name, why in measured.refused.items():
        console.print(f"left out: {name.value}: {why}", markup=False)
    for ratio in ratios_of(measured.runs):
        console.print(_ratio_line(ratio))
    for name, layers in measured.layers.items():
        if layers:
            console.print(_layer_table(name, layers))


def _times(measured: Measured) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("runner", no_wrap=True)
    for heading in ("batch", "p50 ms", "p95", "p99", "items/s", "streamed", "CPU ms/item"):
        table.add_column(heading, justify="right")
    has_power = any(run.watts for run in measured.runs)
    if has_power:
        table.add_column("W")
    for cell in cells_of(measured.runs):
        streamed = cell.streamed_items_per_s
        power = ", ".join(f"{name} {watts:.1f}" for name, watts in cell.watts.items())
        table.add_row(
            cell.runner.value,
            str(cell.batch),
            *(f"{cell.latency_us[f'p{percent}'] / 1000:.2f}" for percent in _PERCENTS),
            f"{cell.items_per_s:.0f}",
            "" if streamed is None else f"{streamed:.0f}",
            f"{cell.cpu_ms_per_item:.3f}",
            *((power,) if has_power else ()),
        )
    return table


def _runners(measured: Measured) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("runner", no_wrap=True)
    for heading in ("load s", "first ms", "peak MB", "copied B/item", "deviation"):
        table.add_column(heading, justify="right")
    for name, ready in measured.ready.items():
        copied = ready.copied_bytes_per_item
        table.add_row(
            name.value,
            f"{ready.load_s:.2f}",
            f"{ready.first_s * 1000:.1f}",
            f"{measured.peak_rss_bytes[name] / _MB:.0f}",
            "" if copied is None else str(copied),
            f"{ready.max_absolute:.1e}",
        )
    return table


def _ratio_line(ratio: Ratio) -> str:
    words = (
        f"{ratio.ours.value} over {ratio.peer.value}, batch {ratio.batch}: "
        f"{ratio.latency:.3f} of the latency, {ratio.cpu:.3f} of the processor time"
    )
    if ratio.is_met is None:
        return f"       {words}"
    return f"{'met   ' if ratio.is_met else 'MISSED'} {words} (goal: at most {ratio.limit})"


def _layer_table(name: RunnerName, layers: Sequence[Layer]) -> Table:
    table = Table(title=f"{name.value}: where the time goes", title_justify="left", box=box.SIMPLE)
    table.add_column("layer", overflow="fold")
    table.add_column("operator")
    table.add_column("µs", justify="right")
    table.add_column("share", justify="right")
    for layer in layers[:_SHOWN_LAYERS]:
        table.add_row(
            layer.name, layer.operator, f"{layer.median_us:.0f}", f"{layer.share * 100:.1f} %"
        )
    if len(layers) > _SHOWN_LAYERS:
        rest = sum(layer.share for layer in layers[_SHOWN_LAYERS:])
        table.add_row(f"{len(layers) - _SHOWN_LAYERS} others", "", "", f"{rest * 100:.1f} %")
    return table
