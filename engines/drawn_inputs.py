"""Random inputs on which two engines are compared: what golden tensors are too few to show.

They lie within the range of the golden inputs, channel by channel, so that the layers see numbers
of the size that they were made for. Three kinds take turns: patterns of several coarseness, golden
inputs with noise, and mixtures of two golden inputs, which come near the operating point where the
two are of different kinds. The same seed and golden inputs give the same inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.package import InputRule

Float32 = NDArray[np.float32]

MOST_BYTES = 32 * 1024**2
"""Of all drawn inputs: a proof is quick, and small beside the model."""
FEWEST = 3
"""One of each kind, however large it is."""

_CELLS = (1, 3, 8, 32, 4096)
"""Of a pattern along its longest axis, from an even picture to noise."""
_NOISE = 0.1
"""Of the range: much for an image, little for a layer."""


def draw_inputs(golden: Float32, rule: InputRule, *, count: int, seed: int) -> Float32:
    """Draws inputs like the golden ones.

    Args:
        golden: (items, ...) in the rule's layout, at least one.
        rule: The package's.
        count: How many; fewer where they would take more than ``MOST_BYTES``, at least three.
        seed: Decides them.

    Returns:
        (items, ...), C-contiguous.
    """
    item_bytes = math.prod(golden.shape[1:]) * golden.itemsize
    count = max(FEWEST, min(count, MOST_BYTES // item_bytes))
    draw = _Drawing(golden, rule.layout.value, np.random.default_rng([seed, 83]))
    kinds: tuple[Callable[[], NDArray[np.float64]], ...] = (draw.pattern, draw.noisy, draw.mixture)
    return np.stack([kinds[place % len(kinds)]().astype(np.float32) for place in range(count)])


class _Drawing:
    def __init__(self, golden: Float32, layout: str, rng: np.random.Generator) -> None:
        self._golden = golden
        self._axes = layout[1:]
        others = tuple(place for place, axis in enumerate(layout) if axis != "C")
        # Of each channel over all items, in a shape that broadcasts to one item.
        self._low = golden.min(axis=others, keepdims=True)[0].astype(np.float64)
        self._high = golden.max(axis=others, keepdims=True)[0].astype(np.float64)
        self._rng = rng

    def pattern(self) -> NDArray[np.float64]:
        return self._inside(self._low + (self._high - self._low) * self._unit_pattern())

    def noisy(self) -> NDArray[np.float64]:
        noise = (self._unit_pattern() - 0.5) * 2 * _NOISE
        return self._inside(self._item() + noise * (self._high - self._low))

    def mixture(self) -> NDArray[np.float64]:
        share = self._rng.random()
        return self._inside(self._item() * share + self._item() * (1 - share))

    def _item(self) -> Float32:
        item: Float32 = self._golden[self._rng.integers(len(self._golden))]
        return item

    def _inside(self, item: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        # In single precision the rounded ends would lie outside otherwise.
        inside: NDArray[np.float64] = np.clip(item, self._low, self._high)
        return inside

    def _unit_pattern(self) -> NDArray[np.float64]:
        sizes = dict(zip(self._axes, self._golden.shape[1:], strict=True))
        longest = max(size for axis, size in sizes.items() if axis != "C")
        cells = min(longest, int(self._rng.choice(_CELLS)))
        coarse = {
            axis: size if axis == "C" else max(1, size * cells // longest)
            for axis, size in sizes.items()
        }
        # A random power: some patterns are dark, some bright.
        pattern = self._rng.random(tuple(coarse.values())) ** np.exp(self._rng.normal())
        for place, axis in enumerate(self._axes):
            chosen = np.arange(sizes[axis]) * coarse[axis] // sizes[axis]
            pattern = pattern.take(chosen, axis=place)
        drawn: NDArray[np.float64] = pattern
        return drawn
