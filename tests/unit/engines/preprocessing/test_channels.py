"""Channels, against SimpleITK and plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from simulators.reference_images import sitk

from engines.preprocessing.channels import (
    neighbours,
    neighbours_of,
    repeat_channels,
    standardise,
    window_channels,
)
from engines.preprocessing.values import Float32
from engines.steps import Neighbours, RepeatChannels, Standardise, Window, WindowChannels


def noise(*shape: int) -> Float32:
    return np.random.default_rng(8).uniform(-1000, 2000, shape).astype(np.float32)


def test_windows_are_simpleitks_windows() -> None:
    values = noise(3, 1, 8, 9)
    bounds = [(0, 80), (-20, 180), (-1000, 1400)]
    step = WindowChannels(
        step="window_channels", windows=tuple(Window(low=low, high=high) for low, high in bounds)
    )
    ours = window_channels(values, step)
    assert ours.shape == (3, 3, 8, 9)
    for index, (low, high) in enumerate(bounds):
        image = sitk.GetImageFromArray(values[:, 0])
        theirs = sitk.GetArrayFromImage(sitk.IntensityWindowing(image, low, high, 0.0, 1.0))
        np.testing.assert_allclose(ours[:, index], theirs, atol=1e-6)


def test_repeated_channels_follow_each_other_as_a_whole() -> None:
    values = noise(2, 2, 3, 4)
    ours = repeat_channels(values, RepeatChannels(step="repeat_channels", times=3))
    np.testing.assert_array_equal(ours, values[:, [0, 1, 0, 1, 0, 1]])


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    values, mean, deviation = noise(2, 3, 4, 5), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = standardise(values, Standardise(step="standardise", mean=mean, deviation=deviation))
    for channel in range(3):
        expected = (values[:, channel].astype(np.float64) - mean[channel]) / deviation[channel]
        np.testing.assert_allclose(ours[:, channel], expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("radius", [0, 1, 2, 8])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_neighbours_stand_around_each_item_and_the_outermost_repeats(
    count: int, radius: int
) -> None:
    values = noise(count, 2, 3, 4)
    step = Neighbours(step="neighbours", radius=radius)
    ours = neighbours(values, step)
    for item in range(count):
        places = [
            min(max(place, 0), count - 1) for place in range(item - radius, item + radius + 1)
        ]
        expected = np.concatenate([values[place] for place in places])
        np.testing.assert_array_equal(ours[item], expected)
        np.testing.assert_array_equal(
            neighbours_of(values, step, range(item, item + 1))[0], expected
        )
