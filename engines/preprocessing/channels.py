"""Items become channels: (N, channels, rows, columns)."""

from __future__ import annotations

import numpy as np

from engines.preprocessing.values import Float32
from engines.steps import Neighbours, RepeatChannels, Standardise, WindowChannels


def window_channels(values: Float32, step: WindowChannels) -> Float32:
    """(N, 1, H, W) to (N, windows, H, W), each in 0 to 1."""
    count, _, rows, columns = values.shape
    channels = np.empty((count, len(step.windows), rows, columns), dtype=np.float32)
    for index, window in enumerate(step.windows):
        channel = channels[:, index]
        np.subtract(values[:, 0], np.float32(window.low), out=channel)
        channel *= np.float32(1.0 / (window.high - window.low))
        np.clip(channel, 0.0, 1.0, out=channel)
    return channels


def repeat_channels(values: Float32, step: RepeatChannels) -> Float32:
    """(N, C, H, W) to (N, times C, H, W): all channels, and all of them again."""
    return np.tile(values, (1, step.times, 1, 1))


def standardise(values: Float32, step: Standardise) -> Float32:
    """Each channel minus its mean, over its deviation."""
    standard = values - _of_channels(step.mean)
    standard /= _of_channels(step.deviation)
    return standard


def neighbours(values: Float32, step: Neighbours) -> Float32:
    """(N, C, H, W) to (N, (2 radius + 1) C, H, W); the outermost item repeats beyond the ends."""
    return neighbours_of(values, step, range(len(values)))


def neighbours_of(values: Float32, step: Neighbours, items: range) -> Float32:
    """The same for some of the items only."""
    count, channels, rows, columns = values.shape
    offsets = np.arange(-step.radius, step.radius + 1)
    wanted = np.clip(np.array(items)[:, np.newaxis] + offsets, 0, count - 1)
    stacked: Float32 = values[wanted].reshape(len(items), len(offsets) * channels, rows, columns)
    return stacked


def _of_channels(numbers: tuple[float, ...]) -> Float32:
    return np.array(numbers, dtype=np.float32)[:, np.newaxis, np.newaxis]
