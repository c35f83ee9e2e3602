"""``edge-triage engines verify``: does each engine decide here as the reference does?"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from edge_runtime.config.settings import Settings
from edge_runtime.pipeline.models import engine_options, preference_of
from edge_runtime.process import engines_path
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
from engines.errors import EngineError
from engines.going_live import REFERENCE, OpenEngine, precision_of, prove_on_device
from engines.layers import LayerReport, find_culprit
from engines.loading import LoadedPackage
from engines.proving import ProofReport
from engines.trials import Asker, trial
from tools.console import (
    DEFAULT_CONFIG,
    EXIT_FAILED,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)
from tools.engines.subjects import PackagesOption, packages_of, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What came of one model on one engine: a report, or why there is none."""

    model: str
    backend: Backend
    report: ProofReport | None
    refusal: str
    layers: LayerReport | None

    @property
    def holds(self) -> bool:
        """Whether the engine may be used here."""
        return self.report is not None and self.report.holds


def verify(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    package: PackagesOption = None,
    engine: Annotated[
        list[Backend] | None,
        typer.Option(
            help="Which engine; repeat for more.", show_default="those of engine.preference"
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Name the layer from which on an engine is off.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare engines with ONNX Runtime in FP32: golden and random inputs, and every decision."""
    with explained_errors():
        settings = settings_of(config)
        packages = packages_of(settings, package)
        backends = engine or list(preference_of(settings.engine).order)
        found = [
            verify_one(item, each, settings, with_layers=layers)
            for item in packages
            for each in backends
        ]
    is_well = all(each.holds for each in found)
    if json:
        print_json({"ok": is_well, "engines": [_as_json(each) for each in found]})
    else:
        _show(found)
    if not is_well:
        raise typer.Exit(EXIT_FAILED)


def verify_one(
    package: LoadedPackage,
    backend: Backend,
    settings: Settings,
    *,
    with_layers: bool = False,
    opens: OpenEngine = open_engine,
) -> Verified:
    """Compare one engine with the reference; ``opens`` gets an engine of a back end.

    Raises:
        PackageError: the package is bad.
    """
    options = engine_options(settings.engine, engines_path(settings))
    report, refusal, layers = None, "", None
    try:
        with (
            trial(backend, package.model.sha256, options, Asker.PERSON) as ready,
            opens(backend, package.model, ready) as candidate,
        ):
            report = prove_on_device(candidate, package, options)
        if with_layers:
            layers = _look_at_layers(package, backend, options, opens)
    except EngineError as error:
        refusal = str(error)
    return Verified(
        model=f"{package.manifest.name} {package.manifest.version}",
        backend=backend,
        report=report,
        refusal=refusal,
        layers=layers,
    )


def _look_at_layers(
    package: LoadedPackage, backend: Backend, options: EngineOptions, opens: OpenEngine
) -> LayerReport:
    """Compare copies of the model, whose plans are kept away from those of the device."""
    with tempfile.TemporaryDirectory(prefix="edge-triage-layers-") as folder:
        loose = dataclasses.replace(options, check_values=False)
        if options.accelerator is not None:
            apart = dataclasses.replace(
                options.accelerator, folder=Path(folder) / "engines", may_build=True
            )
            loose = dataclasses.replace(loose, accelerator=apart)

        def candidate(model: VerifiedFile) -> Engine:
            return opens(backend, model, loose)

        def reference(model: VerifiedFile) -> Engine:
            return open_engine(REFERENCE, model, loose)

        precision = precision_of(backend, options)
        return find_culprit(package, candidate, reference, precision=precision)


def _as_json(each: Verified) -> dict[str, object]:
    report = each.report
    return {
        "model": each.model,
        "engine": each.backend.value,
        "ok": each.holds,
        "refusal": each.refusal or None,
        "software": _software(report) if report else None,
        "precision": report.precision.value if report else None,
        "golden_items": report.golden_items if report else None,
        "random_items": report.random_items if report else None,
        "max_absolute": report.max_absolute if report else None,
        "cosine": report.cosine if report else None,
        "flips": report.flips if report else None,
        "layers": [dataclasses.asdict(layer) for layer in each.layers.layers]
        if each.layers
        else None,
        "culprit": each.layers.culprit.tensor if each.layers and each.layers.culprit else None,
    }


def _software(report: ProofReport) -> str:
    found = report.candidate
    return f"{found.version} {found.provider}"


def _show(found: list[Verified]) -> None:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("model", "engine"):
        table.add_column(heading, no_wrap=True)
    for heading in ("deviation", "cosine", "flips"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for each in found:
        table.add_row(each.model, each.backend.value, *_figures(each.report), _verdict(each))
    out.print(table)
    for each in found:
        for words in _details(each):
            out.print(f"{each.model} on {each.backend.value}: {words}", markup=False)


def _figures(report: ProofReport | None) -> tuple[str, str, str]:
    if report is None:
        return "", "", ""
    return f"{report.max_absolute:.2g}", f"{report.cosine:.7f}", str(report.flips)


def _verdict(each: Verified) -> Text:
    if each.report is None:
        return Text("does not run", "bold red")
    return Text("proven", "green") if each.holds else Text("refused", "bold red")


def _details(each: Verified) -> Iterator[str]:
    if each.report is None:
        yield each.refusal
        return
    items = f"{each.report.golden_items} golden and {each.report.random_items} random inputs"
    if each.holds:
        yield f"decides as the reference does ({items})"
    else:
        yield f"does not decide as the reference does ({items}): do not use it here"
    if each.layers is not None:
        yield _culprit(each.layers)


def _culprit(layers: LayerReport) -> str:
    compared = f"{len(layers.layers)} tensors compared, {len(layers.uncompared)} not to be had"
    if layers.culprit is None:
        return f"no layer is off ({compared})"
    found = layers.culprit
    return (
        f"off from {found.tensor!r} on, which {found.operator} gives: largest deviation "
        f"{found.max_absolute:.2g}, cosine {found.cosine:.6f} ({compared})"
    )
