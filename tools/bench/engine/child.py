"""``python -m tools.bench.engine.child RUNNER JOB LOG``: runs one model on order.

Orders come as lines of JSON on standard input, answers leave so on standard output; whatever a
library prints goes to the log. A runner that does not run here says why, and ends.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.golden import load_golden
from engines.loading import LoadedPackage, load_package
from engines.steps import FREE
from tools.bench.children import answer, own_output
from tools.bench.engine.answers import Ready, Timed
from tools.bench.engine.errors import PeerUnfitError
from tools.bench.engine.job import Job
from tools.bench.engine.names import RunnerName
from tools.bench.engine.runners import Array, Runner, begin

_MOST_RUNS = 200_000
_UNCOUNTED = 2
"""Runs of a batch before those that count: some compile or plan for each new shape."""
_STREAMED = 64
"""Batches that are streamed at once."""


def main(arguments: list[str]) -> int:
    """Serve until standard input ends; 1 when the runner does not run here."""
    name, job, log = RunnerName(arguments[0]), Job.parse(arguments[1]), Path(arguments[2])
    with own_output(log) as answers:
        package = load_package(Path(job.package))
        inputs = load_golden(package).inputs[package.manifest.input.name]
        started_s = time.perf_counter()
        try:
            with begin(name, package, job) as runner:
                load_s = time.perf_counter() - started_s
                answer(answers, dataclasses.asdict(_ready(runner, package, inputs, load_s)))
                for line in sys.stdin:
                    answer(answers, _obey(json.loads(line), runner, inputs))
        except (EngineError, PeerUnfitError) as error:
            answer(answers, {"refused": str(error)})
            return 1
    return 0


def _obey(order: dict[str, Any], runner: Runner, inputs: Array) -> object:
    batch = _batch(inputs, order["batch"])
    if "seconds" in order:
        return dataclasses.asdict(_time(runner, batch, order["seconds"], order["least"]))
    if runner.profile is None:
        return None
    return [dataclasses.asdict(layer) for layer in runner.profile(batch)]


def _ready(runner: Runner, package: LoadedPackage, inputs: Array, load_s: float) -> Ready:
    fixed = package.manifest.input.shape[0]
    first = _batch(inputs, 1 if fixed == FREE else fixed)
    started_s = time.perf_counter()
    outputs = runner.run(first)
    first_s = time.perf_counter() - started_s
    moved = first.nbytes + sum(output.nbytes for output in outputs)
    return Ready(
        software=runner.software,
        load_s=load_s,
        first_s=first_s,
        batch=None if fixed == FREE else fixed,
        max_absolute=_deviation(runner, package, inputs),
        copied_bytes_per_item=moved // len(first) if runner.on_gpu else None,
    )


def _deviation(runner: Runner, package: LoadedPackage, inputs: Array) -> float:
    """Of all golden items: who computes something else is not compared with."""
    golden = load_golden(package).outputs
    fixed = package.manifest.input.shape[0]
    step = 1 if fixed == FREE else fixed
    largest = 0.0
    for start in range(0, len(inputs), step):
        part = _batch(inputs[start : start + step], step)
        for rule, output in zip(package.manifest.outputs, runner.run(part), strict=True):
            wanted = golden[rule.name][start : start + step]
            found = np.asarray(output)[: len(wanted)]
            largest = max(largest, float(np.abs(found - wanted).max()))
    return largest


def _batch(inputs: Array, items: int) -> Array:
    """As many golden items, again from the first one on where there are fewer."""
    chosen: NDArray[np.float32] = np.ascontiguousarray(inputs[np.arange(items) % len(inputs)])
    return chosen


def _time(runner: Runner, batch: Array, seconds: float, least: int) -> Timed:
    """Run for so long, and so often at least."""
    for _ in range(_UNCOUNTED):
        runner.run(batch)
    latencies: list[int] = []
    gc.collect()
    cpu_s, started_s = time.process_time(), time.perf_counter()
    ends_s = started_s + seconds
    last_s = started_s
    while (last_s < ends_s or len(latencies) < least) and len(latencies) < _MOST_RUNS:
        runner.run(batch)
        now_s = time.perf_counter()
        latencies.append(round((now_s - last_s) * 1e6))
        last_s = now_s
    return Timed(
        latencies_us=tuple(latencies),
        wall_s=last_s - started_s,
        cpu_s=time.process_time() - cpu_s,
        streamed_items_per_s=_stream(runner, batch, seconds),
    )


def _stream(runner: Runner, batch: Array, seconds: float) -> float | None:
    if runner.stream is None:
        return None
    items, started_s = 0, time.perf_counter()
    batches: Sequence[Array] = (batch,) * _STREAMED
    while time.perf_counter() < started_s + seconds:
        runner.stream(batches)
        items += len(batch) * len(batches)
    return items / (time.perf_counter() - started_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
