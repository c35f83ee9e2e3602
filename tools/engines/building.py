"""``edge-triage engines build``: builds and proves what the settings prefer, ahead of need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from edge_runtime.config.loading import load_settings
from edge_runtime.config.settings import Settings
from edge_runtime.pipeline.models import OnBuild, engine_options, preference_of
from edge_runtime.process import engines_path
from engines.available import PLAN_BACKENDS
from engines.backends import open_engine
from engines.choosing import Preference
from engines.contract import Backend
from engines.errors import EngineError
from engines.going_live import OpenEngine, open_live
from engines.loading import LoadedPackage
from engines.trials import Asker
from tools.console import (
    DEFAULT_CONFIG,
    EXIT_FAILED,
    ConfigOption,
    JsonOption,
    err,
    explained_errors,
    out,
    print_json,
)
from tools.engines.subjects import PackagesOption, packages_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came of building one model for one engine."""

    model: str
    backend: Backend
    software: str
    refusal: str
    """Empty where it was built and proven."""


def build(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    package: PackagesOption = None,
    json: JsonOption = False,
) -> None:
    """Build and prove the engines of the preference, so that the worker starts at once.

    What lies there already is proven again where it was not. Ctrl-C stops, and leaves nothing half
    built.
    """
    with explained_errors():
        settings = load_settings(config)
        packages = packages_of(settings, package)
        wanted = [each for each in preference_of(settings.engine).allowed if each in PLAN_BACKENDS]
        built = [build_one(item, each, settings) for item in packages for each in wanted]
    is_well = not any(item.refusal for item in built)
    if json:
        print_json({"ok": is_well, "engines": [_as_json(item) for item in built]})
    elif not built:
        out.print("There is nothing to build: no engine that may run here needs it.")
    for item in built if not json else ():
        word = item.refusal and f"not built: {item.refusal}"
        out.print(
            f"{item.model} on {item.backend.value}: {word or f'{item.software}, built and proven'}",
            markup=False,
        )
    if not is_well:
        raise typer.Exit(EXIT_FAILED)


def build_one(
    package: LoadedPackage,
    backend: Backend,
    settings: Settings,
    *,
    opens: OpenEngine = open_engine,
) -> Built:
    """Build one engine, and prove it; ``opens`` gets an engine of a back end.

    Raises:
        PackageError: the package is bad.
    """
    name = f"{package.manifest.name} {package.manifest.version}"
    software = refusal = ""
    with _progress(f"{name} on {backend.value}") as on_build:
        options = engine_options(settings.engine, engines_path(settings), on_build)
        try:
            preference = Preference(order=(backend,))
            with open_live(package, preference, options, asker=Asker.PERSON, opens=opens) as live:
                software = f"{live.engine.metadata.version} {live.engine.metadata.provider}"
        except EngineError as error:
            refusal = str(error)
    return Built(model=name, backend=backend, software=software, refusal=refusal)


@contextlib.contextmanager
def _progress(title: str) -> Iterator[OnBuild]:
    """Show on standard error how far it is, one line that moves."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as shown:
        task = shown.add_task(title, total=None)

        def on_build(phase: str, done: int, steps: int) -> bool:
            shown.update(task, description=f"{title}: {phase}", completed=done, total=steps or None)
            return True

        yield on_build


def _as_json(item: Built) -> dict[str, object]:
    return {
        "model": item.model,
        "engine": item.backend.value,
        "ok": not item.refusal,
        "software": item.software or None,
        "refusal": item.refusal or None,
    }
