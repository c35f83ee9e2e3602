"""The questions in their order, and the package that the answers make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engines.package import FORMAT, ModelPackage
from engines.steps import FREE
from tools.models import answer_types
from tools.models.codes import (
    BODY_PARTS,
    MODALITIES,
    PROCEDURES,
    SOP_CLASSES,
)
from tools.models.errors import AnswersError
from tools.models.input_facts import InputFacts, OutputFacts
from tools.models.plan_findings import ask_findings
from tools.models.questions import Interview, ask, choose
from tools.models.recipes import Fit, Intensity, Kind, Recipe, steps_of

DISCLAIMERS = {
    True: "Demonstration. Not a cleared medical device; must not be used for patients.",
    False: "For triage only, not for diagnosis. A radiologist reads every study.",
}
RGB = 3
WINDOWS_BY_COUNT = {1: "-1000:1000", 3: "0:80, -20:180, -1000:1400"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the answers make."""

    package: ModelPackage
    automatic: frozenset[str]
    """Keys of the findings whose operating point nobody gave: PROVISIONAL stands there."""


def make_plan(
    interview: Interview, source: InputFacts, outputs: tuple[OutputFacts, ...], name: str
) -> Plan:
    """Asks everything that ``package.toml`` needs.

    Args:
        interview: who is asked.
        source: the model's input.
        outputs: the model's outputs.
        name: the package's, unless another is answered.

    Raises:
        AnswersError: an answer is missing, or the answers contradict each other.
        UnfitModelError: no preprocessing ends in the model's input.
    """
    kind = _ask_kind(interview, source)
    identity = _ask_identity(interview, name)
    modalities = ask(
        interview, "modalities", f"Modalities, of {', '.join(SOP_CLASSES)}", _MODALITIES,
        MODALITIES[kind],
    )  # fmt: skip
    selection, gate = _ask_rules(interview, kind, modalities)
    procedure = ask(
        interview, "procedure", "Procedure reported (value scheme meaning)", answer_types.CODE,
        PROCEDURES[modalities[0]],
    )  # fmt: skip
    recipe = _ask_recipe(interview, kind, source, modalities)
    findings, automatic = ask_findings(interview, kind, outputs)
    tables: dict[str, Any] = {
        "format": FORMAT,
        **identity,
        "procedure": procedure,
        "selection": selection,
        "gate": gate,
        "input": {
            "name": source.name,
            "dtype": "float32",
            "shape": source.shape,
            "layout": source.layout,
        },
        "outputs": [{"name": out.name, "dtype": "float32", "shape": out.shape} for out in outputs],
        "findings": findings,
    }
    try:
        package = ModelPackage.model_validate({**tables, "preprocess": steps_of(recipe)})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"]) or "package"
        raise AnswersError(f"the answers make no package: {place}: {fault['msg']}") from error
    return Plan(package=package, automatic=automatic)


_MODALITIES: TypeAdapter[Any] = answer_types.chosen_from(*SOP_CLASSES)


def _ask_kind(interview: Interview, source: InputFacts) -> Kind:
    if source.layout.is_volume:
        return Kind.VOLUME
    choices = (Kind.RADIOGRAPH.value, Kind.SLICES.value, Kind.SLABS.value)
    return Kind(choose(interview, "kind", "What the model looks at", choices))


def _ask_identity(interview: Interview, name: str) -> dict[str, Any]:
    name = ask(interview, "name", "Name of the package", answer_types.NAME, name)
    version = ask(interview, "version", "Version", answer_types.VERSION, "1.0.0")
    title = ask(interview, "title", "What it looks for, in a few letters", answer_types.TITLE)
    use = ask(interview, "intended_use", "Intended use, in a sentence", answer_types.INTENDED_USE)
    demonstration = ask(
        interview, "demonstration", "A demonstration, not for patients (yes, no)",
        answer_types.YES_OR_NO, "yes",
    )  # fmt: skip
    disclaimer = ask(
        interview, "disclaimer", "Disclaimer, shown with every result", answer_types.DISCLAIMER,
        DISCLAIMERS[demonstration],
    )  # fmt: skip
    return {
        "name": name,
        "version": version,
        "title": title,
        "intended_use": use,
        "disclaimer": disclaimer,
        "demonstration": demonstration,
    }


def _ask_rules(
    interview: Interview, kind: Kind, modalities: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which series, and what must hold of them."""
    selection: dict[str, Any] = {
        "modalities": modalities,
        "sop_class_uids": [SOP_CLASSES[modality] for modality in modalities],
        "body_parts": ask(
            interview, "body_parts", "Body parts, as (0018,0015) names them (none: any)",
            answer_types.CODE_STRINGS, BODY_PARTS[kind],
        ),
    }  # fmt: skip
    gate: dict[str, Any] = {
        "age_years": ask(
            interview, "age_years", "Youngest and oldest patient in years (or: any)",
            answer_types.AGES, "18, 120",
        ),
        "lossy": choose(interview, "lossy", "Lossy compression", ("forbidden", "allowed")),
    }  # fmt: skip
    if kind is Kind.RADIOGRAPH:
        views = ask(
            interview, "view_positions", "Views, as (0018,5101) names them (none: any)",
            answer_types.CODE_STRINGS, "PA, AP",
        )  # fmt: skip
        selection |= {"view_positions": views, "series": "all"}
        gate |= {"view_positions": views, "orientation": "any", "pixel_spacing_mm": (0.05, 2.0)}
        return selection, gate
    thickness = ask(
        interview, "slice_thickness_mm", "Thinnest and thickest slices in mm",
        answer_types.MILLIMETRE_RANGE, "0.3, 5.0",
    )  # fmt: skip
    gate |= {
        "slice_thickness_mm": thickness,
        "slice_spacing_mm": thickness,
        "coverage_mm": ask(
            interview, "coverage_mm", "Least and greatest extent covered in mm",
            answer_types.MILLIMETRE_RANGE, "60, 1000",
        ),
        "contrast": choose(
            interview, "contrast", "Contrast agent", ("forbidden", "required", "any")
        ),
        "orientation": choose(interview, "orientation", "Orientation", ("axial", "any")),
    }  # fmt: skip
    return selection, gate


def _ask_recipe(
    interview: Interview, kind: Kind, source: InputFacts, modalities: tuple[str, ...]
) -> Recipe:
    is_volume = kind is Kind.VOLUME
    fit = Fit(choose(interview, "fit", "How pictures come to size", _fits(kind)))
    intensity = Intensity(
        choose(interview, "intensity", "Values that go in", _intensities(modalities))
    )
    radius = 0
    if kind is Kind.SLABS:
        radius = ask(
            interview, "radius", "Neighbours on each side of a slab",
            answer_types.radius(source.channels), _widest(source.channels),
        )  # fmt: skip
    return Recipe(
        kind=kind,
        fit=fit,
        intensity=intensity,
        channels=source.channels,
        slices=_size(interview, "slices", source.slices) if is_volume else FREE,
        rows=_size(interview, "rows", source.rows),
        columns=_size(interview, "columns", source.columns),
        spacing_mm=_ask_spacing(interview, fit, is_volume=is_volume),
        windows=_ask_windows(interview, source, radius) if intensity is Intensity.WINDOWS else (),
        percentiles=_ask_percentiles(interview, intensity),
        slab_mm=_ask_slab(interview) if kind is Kind.SLABS else 5.0,
        radius=radius,
        imagenet=_ask_imagenet(interview, source, intensity, radius),
    )


def _widest(channels: int) -> str:
    """One neighbour on each side where the channels allow it."""
    return "1" if channels % 3 == 0 else "0"


def _fits(kind: Kind) -> tuple[str, ...]:
    if kind is Kind.RADIOGRAPH:
        return (Fit.LETTERBOX.value, Fit.STRETCH.value, Fit.SPACING.value)
    if kind is Kind.VOLUME:
        return (Fit.STRETCH.value, Fit.SPACING.value)
    return (Fit.SPACING.value, Fit.LETTERBOX.value, Fit.STRETCH.value)


def _intensities(modalities: tuple[str, ...]) -> tuple[str, ...]:
    if modalities == ("CT",):
        return (Intensity.WINDOWS.value, Intensity.UNIT.value, Intensity.ZSCORE.value)
    return (Intensity.UNIT.value, Intensity.XRAYVISION.value, Intensity.ZSCORE.value)


def _size(interview: Interview, key: str, known: int) -> int:
    if known != FREE:
        return known
    kind = answer_types.SLICES if key == "slices" else answer_types.PIXELS
    return int(ask(interview, key, f"The model leaves its {key} open; give them", kind))


def _ask_spacing(interview: Interview, fit: Fit, *, is_volume: bool) -> tuple[float, float, float]:
    if fit is not Fit.SPACING:
        return (1.0, 1.0, 1.0)
    if not is_volume:
        pixel = ask(interview, "pixel_mm", "Pixel size in mm", answer_types.MILLIMETRES, "1.0")
        return (1.0, pixel, pixel)
    text = "Distance of slices, rows and columns in mm"
    spacing: tuple[float, float, float] = ask(
        interview, "spacing_mm", text, answer_types.SPACING, "1.0, 1.0, 1.0"
    )
    return spacing


def _ask_windows(interview: Interview, source: InputFacts, radius: int) -> Any:
    count = source.channels // (2 * radius + 1)
    default = WINDOWS_BY_COUNT.get(count, WINDOWS_BY_COUNT[1])
    return ask(interview, "windows", "HU windows (low:high)", answer_types.windows(count), default)


def _ask_percentiles(interview: Interview, intensity: Intensity) -> Any:
    if intensity not in (Intensity.UNIT, Intensity.XRAYVISION):
        return (1.0, 99.0)
    default = "1, 99" if intensity is Intensity.UNIT else "0, 100"
    text = "Percentiles that become the lowest and the highest value"
    return ask(interview, "percentiles", text, answer_types.PERCENTILES, default)


def _ask_slab(interview: Interview) -> Any:
    return ask(interview, "slab_mm", "Thickness of a slab in mm", answer_types.MILLIMETRES, "5.0")


def _ask_imagenet(
    interview: Interview, source: InputFacts, intensity: Intensity, radius: int
) -> bool:
    if source.channels != RGB * (2 * radius + 1) or intensity is not Intensity.UNIT:
        return False
    text = "Standardise as networks trained on ImageNet expect it (yes, no)"
    return bool(ask(interview, "imagenet", text, answer_types.YES_OR_NO, "yes"))
