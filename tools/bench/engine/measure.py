"""Lets every runner run every batch, interleaved: another one begins each round."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.bench.engine.answers import Layer, Ready, Timed
from tools.bench.engine.job import Job
from tools.bench.engine.names import RunnerName
from tools.bench.engine.power import PowerWatch, find_rails
from tools.bench.engine.process import RunnerProcess

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    job: Job
    runners: tuple[RunnerName, ...]
    batches: tuple[int, ...]
    rounds: int
    seconds: float
    """Of each runner, batch and round."""
    least_runs: int
    layers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One runner on one batch in one round."""

    runner: RunnerName
    batch: int
    round: int
    timed: Timed
    watts: Mapping[str, float]
    """Mean power by rail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that was measured."""

    ready: Mapping[RunnerName, Ready]
    refused: Mapping[RunnerName, str]
    """Why a runner did not run here."""
    runs: tuple[Run, ...]
    peak_rss_bytes: Mapping[RunnerName, int]
    layers: Mapping[RunnerName, tuple[Layer, ...]]
    """Of the largest batch."""


def measure(plan: Plan, say: Say) -> Measured:
    """Measure everything that the plan says.

    Raises:
        RunnerFailedError: a runner's process ended in between.
    """
    ready: dict[RunnerName, Ready] = {}
    refused: dict[RunnerName, str] = {}
    with (
        tempfile.TemporaryDirectory(prefix="edge-triage-bench-") as name,
        contextlib.ExitStack() as stack,
    ):
        processes = []
        for runner in plan.runners:
            say(f"{runner.value}: loading ...")
            process = stack.enter_context(RunnerProcess(runner, plan.job, Path(name)))
            answer = process.wait_ready()
            if isinstance(answer, str):
                refused[runner] = answer
                say(f"  left out: {answer}")
                continue
            ready[runner] = answer
            processes.append(process)
            say(f"  {answer.software}, {answer.load_s:.2f} s")
        runs = _rounds(plan, processes, ready, say)
        last = {each.runner: each.batch for each in runs}
        return Measured(
            ready=ready,
            refused=refused,
            runs=runs,
            # Before the profiles, which load the model once more.
            peak_rss_bytes={each.name: each.peak_rss_bytes for each in processes},
            layers={each.name: each.layers(last[each.name]) for each in processes}
            if plan.layers
            else {},
        )


def _rounds(
    plan: Plan, processes: list[RunnerProcess], ready: Mapping[RunnerName, Ready], say: Say
) -> tuple[Run, ...]:
    rails = find_rails()
    runs = []
    for number in range(plan.rounds):
        shift = number % max(len(processes), 1)
        for process in (*processes[shift:], *processes[:shift]):
            fixed = ready[process.name].batch
            for batch in plan.batches if fixed is None else (fixed,):
                with PowerWatch(rails) as power:
                    timed = process.time(batch, seconds=plan.seconds, least=plan.least_runs)
                runs.append(
                    Run(
                        runner=process.name,
                        batch=batch,
                        round=number,
                        timed=timed,
                        watts=power.means,
                    )
                )
                rate = batch * len(timed.latencies_us) / timed.wall_s
                say(f"  {number + 1} {process.name.value:24} batch {batch:3}: {rate:9.1f} items/s")
    return tuple(runs)
