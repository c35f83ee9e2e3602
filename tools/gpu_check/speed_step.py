"""Latency and throughput, ours beside peers, in turns; and the share of the roofline.

Everybody gets the same array in host memory and gives one back in host memory, so that copies count
alike. One round is some calls of each in turn; what a figure tells is over all rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engines.checksums import MAX_FILE_BYTES
from engines.contract import Backend, Precision
from engines.device.driver import find_driver
from engines.drawn_inputs import draw_inputs
from engines.errors import DeviceUnavailableError, EngineError, EngineUnavailableError
from engines.golden import load_golden
from engines.loading import LoadedPackage
from tools.gpu_check.ceilings_step import Ceilings, read_ceilings, time_on_device
from tools.gpu_check.counting import count
from tools.gpu_check.peers import (
    ORT_CUDA,
    Array,
    Opening,
    Peer,
    bare_name,
    load_nvidia_libraries,
    openings,
)
from tools.gpu_check.rows import RowFile, Verdict, number
from tools.gpu_check.subjects import packages

BATCHES = (1, 8, 32)
ROUNDS = 7
ROUND_S = 0.15
"""That one peer runs in one round."""
MOST_LATENCY = 0.7
"""Of ONNX Runtime CUDA's median (NUMBERS.md's goal)."""
LEAST_THROUGHPUT = 0.9
"""Of the bare loop's."""
MOST_DEVIATION = 0.05
"""Of an output, in FP16 too: whoever is further off computes something else, and is no peer."""

_WARM_UP_CALLS = 5
_STREAMED = 200
_SEED = 7
_PROFILED = (Backend.TENSORRT, Backend.TENSORRT_RTX)


@dataclass(slots=True)
class Timed:
    """What one peer took."""

    peer: Peer
    calls_s: list[float] = field(default_factory=list)

    def percentile_ms(self, percent: float) -> float:
        """By nearest rank: a value that was measured."""
        ranked = sorted(self.calls_s)
        return 1000 * ranked[max(round(percent / 100 * len(ranked)) - 1, 0)]


def check(rows: RowFile, folder: Path) -> None:
    """Time everybody who is here, on every package and batch.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    find_driver()
    load_nvidia_libraries()
    ceilings = read_ceilings(folder)
    for package in packages():
        for batch in BATCHES:
            given = inputs_for(package, batch)
            with ExitStack() as stack:
                with_all = Opened(package=package, given=given, stack=stack, folder=folder)
                here = with_all.open(rows, openings())
                time_all(rows, package, here, given)
                if batch == BATCHES[-1]:
                    _tell_rooflines(rows, package, here, given, ceilings)


def inputs_for(package: LoadedPackage, batch: int) -> Array:
    """A batch like the golden inputs."""
    rule = package.manifest.input
    golden = load_golden(package).inputs[rule.name]
    drawn = draw_inputs(golden, rule, count=batch, seed=_SEED)
    return np.ascontiguousarray(drawn[np.arange(batch) % len(drawn)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """For what peers are opened, and what closes them."""

    package: LoadedPackage
    given: Array
    stack: ExitStack
    folder: Path

    def open(self, rows: RowFile, wanted: Sequence[Opening]) -> list[Peer]:
        """Open everybody who is here, and who computes what the first of them computes."""
        here: list[Peer] = []
        answer: Array | None = None
        for opening in wanted:
            subject = f"{self.package.folder.name}, {opening.name}"
            peer = self._open(rows, subject, opening)
            if peer is None:
                continue
            found = peer.run(self.given).copy()
            answer = found if answer is None else answer
            off = float(np.abs(found.reshape(answer.shape) - answer).max())
            if off <= MOST_DEVIATION:
                here.append(peer)
            else:
                rows.add(subject, "computes something else", number(off), verdict=Verdict.FAILED)
        return here

    def _open(self, rows: RowFile, subject: str, opening: Opening) -> Peer | None:
        try:
            peer = opening.open(self.package, self.given.shape, self.stack, self.folder)
            # Compilers and first calls.
            for _ in range(_WARM_UP_CALLS):
                peer.run(self.given)
        except (EngineUnavailableError, DeviceUnavailableError, ImportError) as error:
            rows.not_here(subject, str(error))
            return None
        # A peer's own library may raise anything; the others go on.
        except Exception as error:  # noqa: BLE001 - see above
            is_ours = isinstance(error, EngineError)
            verdict = Verdict.FAILED if is_ours else Verdict.NOT_HERE
            told = f"{type(error).__name__}: {error}"
            rows.add(subject, "opening", " ".join(told.split()), verdict=verdict)
            return None
        return peer


def time_all(
    rows: RowFile,
    package: LoadedPackage,
    here: Sequence[Peer],
    given: Array,
    *,
    rounds: int = ROUNDS,
    round_s: float = ROUND_S,
) -> None:
    """Time peers in turns, and tell figures and goals."""
    timed = {peer.name: Timed(peer) for peer in here}
    for _ in range(rounds):
        for each in timed.values():
            until = time.perf_counter() + round_s
            while (started := time.perf_counter()) < until:
                each.peer.run(given)
                each.calls_s.append(time.perf_counter() - started)
    batch = len(given)
    for name, each in timed.items():
        shown = " / ".join(number(each.percentile_ms(percent)) for percent in (50, 95, 99))
        subject = f"{package.folder.name}, {name}, batch {batch}"
        rows.add(subject, "p50 / p95 / p99", f"{shown} ms", is_key=True)
        rows.add(subject, "throughput", f"{number(_throughput(each, given))} items/s")
    _tell_goals(rows, package, timed, given)


def _tell_goals(
    rows: RowFile, package: LoadedPackage, timed: dict[str, Timed], given: Array
) -> None:
    reference = timed.get(ORT_CUDA)
    for backend in _PROFILED:
        for precision in Precision:
            ours = timed.get(f"{backend.value} {precision.value}")
            bare = timed.get(bare_name(backend, precision))
            if ours is None:
                continue
            subject = f"{package.folder.name}, {ours.peer.name}, batch {len(given)}"
            if reference is not None:
                ratio = ours.percentile_ms(50) / reference.percentile_ms(50)
                rows.compare(
                    subject, "p50 against ONNX Runtime CUDA", ratio, unit="", most=MOST_LATENCY
                )
            if bare is not None:
                ratio = _throughput(ours, given) / _throughput(bare, given)
                rows.compare(
                    subject, "throughput of the bare loop", ratio, unit="", least=LEAST_THROUGHPUT
                )


def _throughput(timed: Timed, given: Array) -> float:
    """Items per second where many batches wait: streamed by ours, without waiting by the loop."""
    engine, loop = timed.peer.engine, timed.peer.loop
    if engine is not None:
        name = engine.inputs[0].name
        seconds = _seconds(
            lambda: sum(1 for _ in engine.stream({name: given} for _ in range(_STREAMED)))
        )
    elif loop is not None:

        def ask_all() -> None:
            for _ in range(_STREAMED):
                loop.ask()
            loop.wait()

        seconds = _seconds(ask_all)
    else:
        seconds = statistics.median(timed.calls_s) * _STREAMED
    return len(given) * _STREAMED / seconds


def _seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _tell_rooflines(
    rows: RowFile,
    package: LoadedPackage,
    here: Sequence[Peer],
    given: Array,
    ceilings: Ceilings,
) -> None:
    """How near the plan alone, without copies, comes to what no engine can beat."""
    work = count(package.model.read(MAX_FILE_BYTES), len(given))
    for peer in here:
        if peer.loop is None:
            continue
        subject = f"{package.folder.name}, {peer.name}, batch {len(given)}"
        seconds = time_on_device(
            peer.loop.device, peer.loop.stream, peer.loop.compute, repeats=50, rounds=7
        )
        rows.add(
            subject,
            "plan alone",
            f"{number(seconds * 1000)} ms, {number(work.operations / seconds / 1e12)} TFLOP/s, "
            f"{number(work.least_bytes / seconds / 1e9)} GB/s at least",
        )
        is_half = Precision.FP16.value in peer.name
        rate = ceilings.fp16_operations if is_half else ceilings.fp32_operations
        if rate is None or ceilings.memory_bytes is None:
            rows.not_here(subject, "no roofline: the step `ceilings` did not measure both ceilings")
            continue
        least = work.least_seconds(operations_per_s=rate, bytes_per_s=ceilings.memory_bytes)
        rows.add(
            subject, "share of the roofline", f"{number(100 * least / seconds)} %", is_key=True
        )
