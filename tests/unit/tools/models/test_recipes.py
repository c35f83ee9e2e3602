"""What every recipe ends in is what the network takes."""

from __future__ import annotations

from itertools import product

import pytest

from engines.steps import ResampleStack, Window, prepared_shape
from tools.models.errors import UnfitModelError
from tools.models.recipes import Fit, Intensity, Kind, Recipe, steps_of

WINDOW = Window(low=0, high=80)


def recipe(kind: Kind, fit: Fit, intensity: Intensity, *, channels: int = 3) -> Recipe:
    return Recipe(
        kind=kind,
        fit=fit,
        intensity=intensity,
        channels=channels,
        slices=24,
        rows=32,
        columns=40,
        windows=(WINDOW,) if intensity is Intensity.WINDOWS else (),
        radius=1 if kind is Kind.SLABS else 0,
    )


@pytest.mark.parametrize(
    ("kind", "fit", "intensity"),
    [each for each in product(Kind, Fit, Intensity) if each[:2] != (Kind.VOLUME, Fit.LETTERBOX)],
)
def test_every_recipe_ends_in_the_size_and_channels_of_the_input(
    kind: Kind, fit: Fit, intensity: Intensity
) -> None:
    shape = prepared_shape(steps_of(recipe(kind, fit, intensity)))
    assert (shape.channels, shape.rows, shape.columns) == (3, 32, 40)
    assert shape.slices == (24 if kind is Kind.VOLUME else -1)


def test_channels_that_nothing_makes_are_refused() -> None:
    with pytest.raises(UnfitModelError, match="the model takes 4 channels; 1 of each item with 1"):
        steps_of(recipe(Kind.SLABS, Fit.SPACING, Intensity.WINDOWS, channels=4))


def test_a_large_volume_may_be_as_large_as_the_input() -> None:
    large = Recipe(
        kind=Kind.VOLUME,
        fit=Fit.STRETCH,
        intensity=Intensity.ZSCORE,
        channels=1,
        slices=256,
        rows=512,
        columns=512,
    )
    (resampling,) = (step for step in steps_of(large) if isinstance(step, ResampleStack))
    assert resampling.max_voxels == 256 * 512 * 512
