"""``edge-triage models quantise``: a package in INT8 of one in FP32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from engines.fields import Version
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages
from tools.console import JsonOption, err, explained_errors, out, print_json
from tools.quantise.errors import ChangedDecisionsError, TargetFolderError
from tools.quantise.methods import Method

if TYPE_CHECKING:
    from tools.quantise.making import Effect, Recipe
    from tools.quantise.studies import StudyResult


def quantise(
    package: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="Folder of a sealed package in FP32, or a shipped one's name."
        ),
    ],
    *,
    target: Annotated[Path, typer.Option("--out", help="Folder to make; it must not exist.")],
    version: Annotated[str, typer.Option(help="Of the new package, such as 1.1.0.")],
    tensors: Annotated[
        Path | None,
        typer.Option(
            help="Folder of .npz files with inputs to calibrate with (array named as the input); "
            "by default golden inputs and golden studies.",
            file_okay=False,
            exists=True,
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="How ranges are taken from them.")] = Method.MINMAX,
    keep: Annotated[
        list[str] | None, typer.Option(help="Name of a node that stays in FP32; may be repeated.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make an INT8 package (Q/DQ) of one in FP32; refused where a decision would be another."""
    # Takes a second to load; only here.
    from tools.quantise.making import Recipe  # noqa: PLC0415

    folder = package if package.exists() else shipped_packages().get(str(package), package)
    _check_version(version)
    recipe = Recipe(method=method, tensors=tensors, keep=tuple(keep or ()))
    with explained_errors():
        loaded = load_package(folder)
        if loaded.manifest.version == version:
            raise typer.BadParameter(f"the old package is version {version}; take a new one")
        effect, tolerance = _make(loaded, recipe, version, target)
    if json:
        print_json({"folder": str(target), "parity_absolute": tolerance, **as_json(effect)})
    else:
        for line in (*lines_of(effect), *_next(target, tolerance)):
            out.print(line, markup=False, soft_wrap=True)


def _make(
    package: LoadedPackage, recipe: Recipe, version: str, target: Path
) -> tuple[Effect, float]:
    from tools.quantise.folder import write_package  # noqa: PLC0415
    from tools.quantise.making import quantise_package  # noqa: PLC0415

    if target.exists():
        raise TargetFolderError(f"{target} exists; remove it, or choose another folder")
    made = quantise_package(package, recipe)
    if made.effect.flips:
        for line in lines_of(made.effect):
            err.print(line, markup=False, soft_wrap=True)
        raise ChangedDecisionsError(
            f"in INT8 {made.effect.flips} decisions differ, so nothing was written; calibrate with "
            "more of what the model will see (--tensors), try the other --method, or leave layers "
            "in FP32 (--keep)"
        )
    return made.effect, write_package(package, made, version, target)


def _check_version(version: str) -> None:
    try:
        TypeAdapter(Version).validate_python(version)
    except ValidationError as error:
        raise typer.BadParameter(f"{version!r} is no version; write 1.1.0") from error


def as_json(effect: Effect) -> dict[str, object]:
    """The effect for scripts."""
    return {
        "calibration_items": effect.calibration_items,
        "layers_int8": effect.layers,
        "kept_fp32": list(effect.kept),
        "bytes": {"before": effect.bytes_before, "after": effect.bytes_after},
        "golden": {
            "elements": effect.golden.elements,
            "max_absolute": effect.golden.max_absolute,
            "cosine": effect.golden.cosine,
            "flips": effect.golden.flips,
        },
        "studies": [
            {
                "folder": change.before.folder,
                "before": change.before.outcome.value,
                "after": change.after.outcome.value,
                "probabilities_before": dict(change.before.probabilities),
                "probabilities_after": dict(change.after.probabilities),
            }
            for change in effect.studies
        ],
        "flips": effect.flips,
        "rounding_between_engines": effect.rounding,
        "processor_time_ratio": effect.cost,
    }


def lines_of(effect: Effect) -> tuple[str, ...]:
    """The effect for people."""
    golden = effect.golden
    kept = ", ".join(effect.kept) or "none"
    lines = [
        f"{effect.layers} layers in INT8, calibrated with {effect.calibration_items} items",
        f"in FP32 stay {kept}",
        f"model: {effect.bytes_before} bytes before, {effect.bytes_after} after",
        f"processor time of a run here: {effect.cost:.2f} of FP32's",
        f"golden inputs: largest deviation {golden.max_absolute:.3g}, cosine {golden.cosine:.5f}",
        f"golden decisions that differ: {golden.flips} of {golden.elements}",
        f"two engines that run it may be {effect.rounding:.3g} apart",
    ]
    for change in effect.studies:
        sides = [_shown(change.before), _shown(change.after)]
        lines.append(f"golden study {change.before.folder}: {sides[0]} before, {sides[1]} after")
    return tuple(lines)


def _shown(result: StudyResult) -> str:
    probabilities = (f"{key} {value:.4f}" for key, value in result.probabilities.items())
    return " ".join((result.outcome.value, *probabilities))


def _next(target: Path, tolerance: float) -> tuple[str, ...]:
    return (
        f"{target} is laid out, with parity.absolute = {tolerance:g}. Next:",
        "- edge-triage models evaluate: the scores of your test set, by this model",
        "- card.toml and figures are still those of the FP32 model: bring them up to date",
        "- edge-triage models seal, then edge-triage models verify",
    )
