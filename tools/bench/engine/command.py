"""``edge-triage bench engine``, which is also ``edge-triage engines bench``."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.config.loading import load_settings
from edge_runtime.config.settings import EngineSettings
from edge_runtime.pipeline.packages import find_packages
from edge_runtime.process import engines_path
from engines.batching import MOST_ITEMS
from engines.contract import Backend, Precision
from engines.loading import LoadedPackage
from tools.bench.engine.job import Job
from tools.bench.engine.measure import Measured, Plan, measure
from tools.bench.engine.names import PEERS, RunnerName, is_installed
from tools.bench.engine.report import report, show, show_machine
from tools.bench.machine import describe_machine
from tools.console import EXIT_FAILED, JsonOption, err, explained_errors, out, print_json

_MIB = 1024 * 1024
_MOST_BATCH = 256


def engine(
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Settings of a device, whose engines are measured as it runs them.",
            show_default="the default settings, and plans in a temporary folder",
        ),
    ] = None,
    package: Annotated[
        list[Path] | None,
        typer.Option(
            "--package",
            help="A folder, or the name of a shipped package; repeat for more.",
            show_default="head_ct_phantom",
        ),
    ] = None,
    engines: Annotated[
        list[Backend] | None,
        typer.Option(
            "--engine", help="Which of ours; repeat for more.", show_default="all that run here"
        ),
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure the peers found on this machine too.")
    ] = False,
    peer: Annotated[
        list[RunnerName] | None,
        typer.Option(help="Which peers; repeat for more.", show_default="with --peers all"),
    ] = None,
    batches: Annotated[
        list[int] | None,
        typer.Option(
            "--batch",
            min=1,
            max=_MOST_BATCH,
            help="Items at once, of models that may choose; repeat for more.",
            show_default="1, 8, 32",
        ),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="On a GPU.", show_default="of the settings")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=64, help="Of one inference on the processor.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds, interleaved.")] = 5,
    seconds: Annotated[
        float, typer.Option(min=0.01, max=600, help="Of each runner, batch and round.")
    ] = 2.0,
    layers: Annotated[
        bool, typer.Option("--layers", help="Say also in which layers the time goes.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Time engines on this machine, beside peers: latency, throughput, memory, copies, power."""
    machine = describe_machine()
    others = peer or (PEERS if peers else ())
    runners = _runners(engines, [name for name in others if is_installed(name)])
    wanted = tuple(dict.fromkeys(batches or (1, 8, 32)))
    with explained_errors(), _settings(config) as (settings, plans):
        results: list[tuple[Plan, Measured, str]] = []
        for item in find_packages(package or [Path("head_ct_phantom")]):
            plan = Plan(
                job=_job(item, settings, plans, precision, threads, most_items=max(wanted)),
                runners=runners,
                batches=wanted,
                rounds=rounds,
                seconds=seconds,
                least_runs=5,
                layers=layers,
            )
            name = f"{item.manifest.name} {item.manifest.version}"
            results.append((plan, measure(plan, _say), name))
    if json:
        print_json(
            {
                "benchmark": "engine",
                "machine": dataclasses.asdict(machine),
                "models": [report(*each) for each in results],
            }
        )
    else:
        show_machine(out, machine)
        for each in results:
            show(out, *each)
    if not all(measured.runs for _, measured, _ in results):
        raise typer.Exit(EXIT_FAILED)


def _say(text: str) -> None:
    err.print(text, markup=False, soft_wrap=True)


def _runners(
    engines: Sequence[Backend] | None, peers: Sequence[RunnerName]
) -> tuple[RunnerName, ...]:
    ours = [RunnerName(backend.value) for backend in engines or Backend]
    return tuple(dict.fromkeys((*ours, *peers)))


@contextlib.contextmanager
def _settings(config: Path | None) -> Iterator[tuple[EngineSettings, Path]]:
    """The engine's settings, and where plans lie."""
    if config is not None:
        settings = load_settings(config)
        yield settings.engine, engines_path(settings)
        return
    with tempfile.TemporaryDirectory(prefix="edge-triage-plans-") as folder:
        yield EngineSettings(), Path(folder) / "engines"


def _job(
    package: LoadedPackage,
    settings: EngineSettings,
    plans: Path,
    precision: Precision | None,
    threads: int | None,
    *,
    most_items: int,
) -> Job:
    return Job(
        package=str(package.folder),
        plans=str(plans),
        threads=threads or settings.threads,
        precision=precision.value if precision else settings.gpu.precision.value,
        gpu=settings.gpu.index,
        memory_bytes=settings.gpu.memory_mib * _MIB,
        most_items=max(most_items, MOST_ITEMS),
    )
