"""Between which values the preprocessing leaves each channel of the model's input. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from engines.steps import (
    Neighbours,
    PercentileNormalise,
    PreprocessStep,
    RepeatChannels,
    ScaleRange,
    Standardise,
    WindowChannels,
    ZscoreNormalise,
)

Range = tuple[float, float]

STORED: Range = (-1024.0, 3071.0)
"""HU of 12 bits: what there is where no step brings values to a range."""
DEVIATIONS = 4.0
"""From the mean: beyond it hardly a pixel lies."""
BEYOND = 0.25
"""Of the range on each side, where values outside percentiles are not cut off."""


def value_ranges(steps: Sequence[PreprocessStep]) -> tuple[Range, ...]:
    """Lowest and highest value of each channel, as far as the steps tell."""
    return reduce(_after, steps, (STORED,))


def _after(ranges: tuple[Range, ...], step: PreprocessStep) -> tuple[Range, ...]:
    if isinstance(step, PercentileNormalise):
        return ((0.0, 1.0) if step.clip else (-BEYOND, 1.0 + BEYOND),)
    if isinstance(step, ZscoreNormalise):
        return ((-DEVIATIONS, DEVIATIONS),)
    if isinstance(step, ScaleRange):
        return tuple(_scaled(values, step) for values in ranges)
    return _after_channels(ranges, step)


def _after_channels(ranges: tuple[Range, ...], step: PreprocessStep) -> tuple[Range, ...]:
    if isinstance(step, WindowChannels):
        return ((0.0, 1.0),) * len(step.windows)
    if isinstance(step, RepeatChannels):
        return ranges * step.times
    if isinstance(step, Neighbours):
        return ranges * (2 * step.radius + 1)
    if isinstance(step, Standardise):
        return tuple(
            ((low - mean) / deviation, (high - mean) / deviation)
            for (low, high), mean, deviation in zip(ranges, step.mean, step.deviation, strict=True)
        )
    return ranges


def _scaled(values: Range, step: ScaleRange) -> Range:
    if step.clip:
        return step.target
    factor = (step.target[1] - step.target[0]) / (step.source[1] - step.source[0])
    low, high = (step.target[0] + (value - step.source[0]) * factor for value in values)
    return low, high
