"""What the options of an engine on the processor cost: ``python -m tools.bench.session_options``.

Threads, arena, spinning, checking of values: each way has a process of its own, which runs a
package's golden inputs when it is asked to. All ways take turns, in another order in each round,
and a ratio compares runs of the same round. The measure is a bare loop over ONNX Runtime with one
thread and its defaults otherwise. Processor time counts all threads of the process, and a moment
after the runs, in which idle threads may spin.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from engines.backends import open_engine
from engines.checksums import MAX_FILE_BYTES
from engines.contract import Backend, EngineOptions
from engines.golden import load_golden
from engines.loading import load_package
from engines.package import InputRule
from engines.shipped import shipped_packages
from engines.steps import FREE
from tools.bench.machine import describe_machine
from tools.console import JsonOption, out, print_json

IDLE_S = 0.02
"""After the runs, of which processor time still counts: the next slice is that far away."""
BATCHES = (1, 8, 32)
RUNS = {1: 40, 8: 10, 32: 3}
REFERENCE = "bare loop, 1 thread"

Run = Callable[[NDArray[np.float32]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """An engine of ours, or a bare loop."""

    options: EngineOptions | None = None
    bare_threads: int = 1


WAYS: Mapping[str, Way] = MappingProxyType(
    {
        REFERENCE: Way(),
        "bare loop, library's defaults": Way(bare_threads=0),
        "ours": Way(options=EngineOptions()),
        "ours, no arena": Way(options=EngineOptions(memory_arena=False)),
        "ours, values unchecked": Way(options=EngineOptions(check_values=False)),
        "ours, 2 threads": Way(options=EngineOptions(intra_op_threads=2)),
        "ours, 2 threads, spinning": Way(options=EngineOptions(intra_op_threads=2, spinning=True)),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What some runs took."""

    cpu_s: float
    wall_s: float
    rss_bytes: int
    """Of the process after them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way with one batch."""

    package: str
    batch: int
    way: str
    cpu_ms: float
    """Median of the rounds, of one run."""
    cpu_ratio: float
    """Median of the ratios to the reference in the same round."""
    wall_ms: float
    wall_ratio: float
    rss_mb: float


app = typer.Typer()


@app.command()
def main(
    *,
    rounds: Annotated[int, typer.Option(min=3, help="How often every way has its turn.")] = 15,
    json: JsonOption = False,
) -> None:
    """Compare the options of an engine on the processor, with the packages that we ship."""
    machine = describe_machine()
    rows = [row for folder in shipped_packages().values() for row in measure(folder, rounds)]
    if json:
        print_json({"machine": asdict(machine), "rounds": rounds, "rows": [*map(asdict, rows)]})
    else:
        _show(rows)


def measure(folder: Path, rounds: int) -> Iterator[Row]:
    """Measures every way with every batch.

    Args:
        folder: Of a package.
        rounds: How often every way has its turn, beside one round that warms up.
    """
    with contextlib.ExitStack() as stack:
        asked = {name: stack.enter_context(_started(folder, way)) for name, way in WAYS.items()}
        for batch in BATCHES:
            taken = _rounds(asked, batch, rounds)
            for name in WAYS:
                yield _row(folder.name, batch, name, taken)


def _rounds(asked: Mapping[str, Connection], batch: int, rounds: int) -> dict[str, list[Taken]]:
    names = list(asked)
    taken: dict[str, list[Taken]] = {name: [] for name in names}
    # The first round warms up.
    for turn in range(rounds + 1):
        # By chance, not in turn: whoever followed those that spin would always be disturbed.
        for name in np.random.default_rng(turn).permutation(names):
            asked[name].send(batch)
            answer = asked[name].recv()
            if turn:
                taken[name].append(answer)
    return taken


def _row(package: str, batch: int, name: str, taken: Mapping[str, Sequence[Taken]]) -> Row:
    ours, theirs = taken[name], taken[REFERENCE]
    runs = RUNS[batch]
    return Row(
        package=package,
        batch=batch,
        way=name,
        cpu_ms=statistics.median(each.cpu_s for each in ours) / runs * 1000,
        cpu_ratio=statistics.median(a.cpu_s / b.cpu_s for a, b in zip(ours, theirs, strict=True)),
        wall_ms=statistics.median(each.wall_s for each in ours) / runs * 1000,
        wall_ratio=statistics.median(
            a.wall_s / b.wall_s for a, b in zip(ours, theirs, strict=True)
        ),
        rss_mb=max(each.rss_bytes for each in ours) / 1e6,
    )


@contextlib.contextmanager
def _started(folder: Path, way: Way) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, folder, way), name="session-options")
    process.start()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join()


def _serve(connection: Connection, folder: Path, way: Way) -> None:
    """A process of its own: runs what it is asked to until it is told to end."""
    package = load_package(folder)
    rule = package.manifest.input
    golden = load_golden(package).inputs[rule.name]
    with contextlib.ExitStack() as stack:
        run = _runner(stack, folder, way)
        while (batch := connection.recv()) is not None:
            connection.send(_timed(run, _items(golden, rule, batch), RUNS[batch]))


def _items(golden: NDArray[np.float32], rule: InputRule, batch: int) -> NDArray[np.float32]:
    count = batch if rule.shape[0] == FREE else rule.shape[0]
    return np.ascontiguousarray(golden[np.arange(count) % len(golden)])


def _runner(stack: contextlib.ExitStack, folder: Path, way: Way) -> Run:
    package = load_package(folder)
    name = package.manifest.input.name
    if way.options is not None:
        engine = stack.enter_context(open_engine(Backend.ONNXRUNTIME, package.model, way.options))
        return lambda items: engine.run({name: items})
    session = _bare_session(package.model.read(MAX_FILE_BYTES), way.bare_threads)
    outputs = [rule.name for rule in package.manifest.outputs]
    return lambda items: session.run(outputs, {name: items})


def _bare_session(model: bytes, threads: int) -> Any:
    # After the adapter: it silences what the library would tell its maker.
    importlib.import_module("engines.onnxruntime_engine")
    onnxruntime = importlib.import_module("onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model, sess_options=settings, providers=["CPUExecutionProvider"]
    )


def _timed(run: Run, items: NDArray[np.float32], runs: int) -> Taken:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(runs):
        run(items)
    wall_s = time.perf_counter() - wall
    time.sleep(IDLE_S)
    return Taken(cpu_s=time.process_time() - cpu, wall_s=wall_s, rss_bytes=_rss_bytes())


def _rss_bytes() -> int:
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _show(rows: Sequence[Row]) -> None:
    for package, batch in dict.fromkeys((row.package, row.batch) for row in rows):
        table = Table(title=f"{package}, batch {batch}", title_justify="left", box=None)
        for column in ("", "cpu ms", "ratio", "wall ms", "ratio", "RSS MB"):
            table.add_column(column, no_wrap=True, justify="right" if column else "left")
        for row in rows:
            if (row.package, row.batch) == (package, batch):
                figures = (row.cpu_ms, row.cpu_ratio, row.wall_ms, row.wall_ratio)
                shown = (f"{figure:.3f}" for figure in figures)
                table.add_row(row.way, *shown, f"{row.rss_mb:.0f}")
        out.print(table)


if __name__ == "__main__":
    app()
