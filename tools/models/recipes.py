"""From what a model looks at to the preprocessing that such models usually have. Pure.

Four kinds: single radiographs, single slices, slabs with their neighbours (2.5D), whole volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from engines.steps import (
    AverageSlabs,
    CanonicalOrientation,
    CropOrPad,
    EachImage,
    InvertMonochrome1,
    Letterbox,
    Neighbours,
    PercentileNormalise,
    PreprocessStep,
    RepeatChannels,
    ResampleInPlane,
    ResampleStack,
    Rescale,
    Resize,
    ScaleRange,
    StackSlices,
    Standardise,
    Window,
    WindowChannels,
    ZscoreNormalise,
)
from tools.models.errors import UnfitModelError

AIR_HU = -1000.0
XRAYVISION = (-1024.0, 1024.0)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
MOST_RADIOGRAPHS = 16
MOST_SLICES = 1024
MOST_VOXELS = 64_000_000


class Kind(str, Enum):
    """What the model looks at."""

    RADIOGRAPH = "radiograph"
    SLICES = "slices"
    SLABS = "slabs"
    VOLUME = "volume"


class Fit(str, Enum):
    """How pictures come to the input's size."""

    LETTERBOX = "letterbox"
    """Proportions kept, the rest filled."""
    STRETCH = "stretch"
    SPACING = "spacing"
    """To a pixel size in millimetres, then cut or filled about the middle."""


class Intensity(str, Enum):
    """What values the network wants."""

    WINDOWS = "windows"
    """HU windows, each a channel of 0 to 1."""
    UNIT = "unit"
    """Percentiles to 0 and 1."""
    XRAYVISION = "xrayvision"
    """-1024 to 1024."""
    ZSCORE = "zscore"
    """Mean 0, deviation 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the steps."""

    kind: Kind
    fit: Fit
    intensity: Intensity
    channels: int
    slices: int
    """Of a volume."""
    rows: int
    columns: int
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Between slices, rows, columns; used by ``Fit.SPACING``."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    windows: tuple[Window, ...] = ()
    slab_mm: float = 5.0
    radius: int = 0
    imagenet: bool = False


def steps_of(recipe: Recipe) -> tuple[PreprocessStep, ...]:
    """The steps, in order.

    Raises:
        UnfitModelError: they cannot end in as many channels as the model takes.
    """
    stack = _is_of_stack(recipe)
    normalise = _normalise(recipe)
    return (
        Rescale(step="rescale", padding=_darkest(recipe)),
        *_turn(recipe),
        *(() if stack else normalise),
        *_fit_images(recipe),
        _collect(recipe),
        *_fit_stack(recipe),
        *(normalise if stack else ()),
        *_channels(recipe),
    )


def _is_of_stack(recipe: Recipe) -> bool:
    """Whether values are brought to their range over all images together."""
    return recipe.kind in (Kind.SLABS, Kind.VOLUME)


def _darkest(recipe: Recipe) -> float:
    return AIR_HU if recipe.intensity is Intensity.WINDOWS else 0.0


def _fill(recipe: Recipe) -> float:
    """What lies beyond the picture, in the unit that it has when it is fitted."""
    normalised_before = not _is_of_stack(recipe)
    if recipe.intensity is Intensity.XRAYVISION and normalised_before:
        return XRAYVISION[0]
    return _darkest(recipe)


def _turn(recipe: Recipe) -> tuple[PreprocessStep, ...]:
    if recipe.kind is Kind.RADIOGRAPH:
        return (InvertMonochrome1(step="invert_monochrome1"),)
    return (CanonicalOrientation(step="canonical_orientation"),)


def _normalise(recipe: Recipe) -> tuple[PreprocessStep, ...]:
    if recipe.intensity is Intensity.WINDOWS:
        return ()
    if recipe.intensity is Intensity.ZSCORE:
        return (ZscoreNormalise(step="zscore_normalise"),)
    unit = PercentileNormalise(step="percentile_normalise", percentiles=recipe.percentiles)
    if recipe.intensity is Intensity.UNIT:
        return (unit,)
    return (unit, ScaleRange(step="scale_range", source=(0, 1), target=XRAYVISION))


def _fit_images(recipe: Recipe) -> tuple[PreprocessStep, ...]:
    rows, columns, fill = recipe.rows, recipe.columns, _fill(recipe)
    if recipe.kind is Kind.VOLUME:
        return ()
    if recipe.fit is Fit.LETTERBOX:
        return (Letterbox(step="letterbox", rows=rows, columns=columns, fill=fill),)
    if recipe.fit is Fit.STRETCH:
        return (Resize(step="resize", rows=rows, columns=columns),)
    return (
        ResampleInPlane(
            step="resample_in_plane",
            rows=rows,
            columns=columns,
            pixel_mm=recipe.spacing_mm[1],
            fill=fill,
        ),
    )


def _collect(recipe: Recipe) -> PreprocessStep:
    if recipe.kind is Kind.RADIOGRAPH:
        return EachImage(step="each_image", max_images=MOST_RADIOGRAPHS)
    if recipe.kind is Kind.SLICES:
        return EachImage(step="each_image", max_images=MOST_SLICES)
    if recipe.kind is Kind.SLABS:
        return AverageSlabs(step="average_slabs", thickness_mm=recipe.slab_mm)
    return StackSlices(step="stack_slices", max_slices=MOST_SLICES)


def _fit_stack(recipe: Recipe) -> tuple[PreprocessStep, ...]:
    if recipe.kind is not Kind.VOLUME:
        return ()
    slices, rows, columns = recipe.slices, recipe.rows, recipe.columns
    if recipe.fit is Fit.STRETCH:
        shape = ResampleStack(
            step="resample_stack",
            shape=(slices, rows, columns),
            method="area",
            max_voxels=max(MOST_VOXELS, slices * rows * columns),
        )
        return (shape,)
    return (
        ResampleStack(step="resample_stack", spacing_mm=recipe.spacing_mm, method="area"),
        CropOrPad(
            step="crop_or_pad",
            rows=rows,
            columns=columns,
            slices=slices,
            fill=_darkest(recipe),
        ),
    )


def _channels(recipe: Recipe) -> tuple[PreprocessStep, ...]:
    made = len(recipe.windows) if recipe.intensity is Intensity.WINDOWS else 1
    neighbours = 2 * recipe.radius + 1
    each, left = divmod(recipe.channels, made * neighbours)
    if left or not each:
        raise UnfitModelError(
            f"the model takes {recipe.channels} channels; {made} of each item with {recipe.radius} "
            f"neighbours on each side make {made * neighbours}; answer otherwise"
        )
    steps: list[PreprocessStep] = []
    if recipe.intensity is Intensity.WINDOWS:
        steps.append(WindowChannels(step="window_channels", windows=recipe.windows))
    if each > 1:
        steps.append(RepeatChannels(step="repeat_channels", times=each))
    if recipe.imagenet:
        steps.append(
            Standardise(step="standardise", mean=IMAGENET_MEAN, deviation=IMAGENET_DEVIATION)
        )
    if recipe.radius:
        steps.append(Neighbours(step="neighbours", radius=recipe.radius))
    return tuple(steps)
