"""Linear maps of values, fixed or by what the picture or stack itself holds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.values import Float32, Picture, Stack
from engines.steps import PercentileNormalise, ScaleRange, ZscoreNormalise

# Smaller differences are no contrast: their reciprocal would carry values out of float32.
LEAST_CONTRAST = 1e-15
# The same, as a part of the values: so much float32 makes of averages of one and the same.
ROUNDING = 1e-6


class Line(NamedTuple):
    """A linear map: values minus ``base``, times ``factor``, plus ``offset``, within ``ends``."""

    base: float
    factor: float
    offset: float = 0.0
    ends: tuple[float, float] = (-math.inf, math.inf)

    def of(self, value: float) -> float:
        """One value mapped."""
        return min(max((value - self.base) * self.factor + self.offset, self.ends[0]), self.ends[1])

    def in_float32(self) -> tuple[np.float32, np.float32, np.float32]:
        """Base, factor and offset; what the base lost in float32 comes back with the offset."""
        base = np.float32(self.base)
        offset = np.float32(self.offset - (self.base - float(base)) * self.factor)
        return base, np.float32(self.factor), offset


NO_CONTRAST = Line(base=0.0, factor=0.0)


def scale_picture(picture: Picture, step: ScaleRange) -> Picture:
    """The step's source becomes its target."""
    return _picture_mapped(picture, range_line(step))


def scale_stack(stack: Stack, step: ScaleRange) -> Stack:
    """The step's source becomes its target."""
    return replace(stack, values=_mapped(stack.values, range_line(step)))


def normalise_picture_by_percentiles(picture: Picture, step: PercentileNormalise) -> Picture:
    """The picture's lower percentile becomes 0, the upper 1.

    Raises:
        UnfitImagesError: NO_FOREGROUND: no value counts.
    """
    return _picture_mapped(picture, _percentile_line(picture.values, step))


def normalise_stack_by_percentiles(stack: Stack, step: PercentileNormalise) -> Stack:
    """The stack's lower percentile becomes 0, the upper 1.

    Raises:
        UnfitImagesError: NO_FOREGROUND: no value counts.
    """
    return replace(stack, values=_mapped(stack.values, _percentile_line(stack.values, step)))


def normalise_picture_by_zscore(picture: Picture, step: ZscoreNormalise) -> Picture:
    """Minus the picture's mean, over its standard deviation.

    Raises:
        UnfitImagesError: NO_FOREGROUND: no value counts.
    """
    return _picture_mapped(picture, _zscore_line(picture.values[np.newaxis], step))


def normalise_stack_by_zscore(stack: Stack, step: ZscoreNormalise) -> Stack:
    """Minus the stack's mean, over its standard deviation.

    Raises:
        UnfitImagesError: NO_FOREGROUND: no value counts.
    """
    return replace(stack, values=_mapped(stack.values, _zscore_line(stack.values, step)))


def _picture_mapped(picture: Picture, line: Line) -> Picture:
    low, high = picture.extremes
    return replace(
        picture, values=_mapped(picture.values, line), extremes=(line.of(low), line.of(high))
    )


def _mapped(values: Float32, line: Line) -> Float32:
    if line.factor == 0.0:
        return np.zeros(values.shape, dtype=np.float32)
    base, factor, offset = line.in_float32()
    mapped = np.subtract(values, base)
    mapped *= factor
    if offset:
        mapped += offset
    if math.isfinite(line.ends[0]):
        np.clip(mapped, *line.ends, out=mapped)
    return mapped


def range_line(step: ScaleRange) -> Line:
    """Return the map from the step's source to its target."""
    (low, high), (bottom, top) = step.source, step.target
    factor = (top - bottom) / max(high - low, LEAST_CONTRAST)
    if step.clip:
        return Line(base=low, factor=factor, offset=bottom, ends=step.target)
    return Line(base=low, factor=factor, offset=bottom)


def _percentile_line(values: Float32, step: PercentileNormalise) -> Line:
    low, high = _percentiles(_counted(values, step.foreground_above), step.percentiles)
    if _is_rounding(high - low, max(abs(low), abs(high))):
        return NO_CONTRAST
    if step.clip:
        return Line(base=low, factor=1 / (high - low), ends=(0.0, 1.0))
    return Line(base=low, factor=1 / (high - low))


def _counted(values: Float32, above: float | None) -> Float32:
    """A flat copy of the values that count."""
    counted = values.flatten() if above is None else values[values > np.float32(above)]
    if not len(counted):
        raise _no_foreground()
    return counted


def _no_foreground() -> UnfitImagesError:
    return UnfitImagesError(ImageFault.NO_FOREGROUND, "nothing lies above 'foreground_above'")


def _percentiles(values: Float32, wanted: tuple[float, float]) -> tuple[float, float]:
    """Between order statistics, as numpy's method 'linear'; rearranges ``values``."""
    places = [percent / 100 * (len(values) - 1) for percent in wanted]
    ranks = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    values.partition(ranks)
    low, high = (_between(values, place) for place in places)
    return low, high


def _between(values: Float32, place: float) -> float:
    below, above = float(values[math.floor(place)]), float(values[math.ceil(place)])
    return below + (above - below) * (place - math.floor(place))


def _zscore_line(planes: Float32, step: ZscoreNormalise) -> Line:
    """Plane by plane, so that a large stack is not copied; sums in float64."""
    counts, totals = 0, 0.0
    for plane in planes:
        counted = _of_plane(plane, step.foreground_above)
        counts += counted.size
        totals += float(counted.sum(dtype=np.float64))
    if not counts:
        raise _no_foreground()
    mean = totals / counts
    squares = 0.0
    for plane in planes:
        apart = _of_plane(plane, step.foreground_above) - np.float32(mean)
        squares += float(np.square(apart, out=apart).sum(dtype=np.float64))
    # The mean was rounded to float32 before it was taken off.
    variance = squares / counts - (mean - float(np.float32(mean))) ** 2
    deviation = math.sqrt(max(variance, 0.0))
    if _is_rounding(deviation, abs(mean)):
        return NO_CONTRAST
    return Line(base=mean, factor=1 / deviation)


def _is_rounding(difference: float, size: float) -> bool:
    return difference < max(LEAST_CONTRAST, ROUNDING * size)


def _of_plane(plane: Float32, above: float | None) -> Float32:
    return plane if above is None else plane[plane > np.float32(above)]
