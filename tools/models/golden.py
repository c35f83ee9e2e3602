"""Makes the golden tensors of a package: inputs within the range that the preprocessing gives.

They hold patterns of several coarseness and contrast, not images. Each finding needs inputs on both
sides of its operating point. Where that is not known yet, it is put into a gap amid the model's own
answers; where it is, inputs are drawn anew around the best ones, for a bounded number of rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.batching import run_batches
from engines.calibration import calibrated_probability, item_logits
from engines.contract import Engine
from engines.golden import MAX_GOLDEN_BYTES
from engines.package import FindingRule, ModelPackage
from engines.steps import prepared_shape
from tools.models.errors import UnfitModelError
from tools.models.plan_points import with_operating_points
from tools.models.value_range import value_ranges

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Outputs = dict[str, Float32]

MOST_BYTES = 16 * 1024**2
"""Of the inputs: packages stay small, and verifying them quick."""
FEWEST, MOST = 4, 12
HEADER_BYTES = 4096
"""More than what stands before the numbers in the file."""
LEVELS = 255
"""Values are multiples of 1/255 of the range: they pack well."""
COARSENESS = (1, 2, 4, 8, 32)
"""Cells along the longest axis of a pattern; 1 is an even picture."""
ROUNDS = 6
"""Of drawing anew around the best."""
CHANGE = 0.35
"""How much of a new pattern goes into one that is drawn anew."""
DIGITS = 6
"""Of a threshold that is chosen here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Golden tensors, and the package with the operating points that were chosen for them."""

    package: ModelPackage
    inputs: Float32
    outputs: Outputs
    one_sided: tuple[str, ...]
    """Keys of the findings for which no input was found on one side of the operating point."""


def golden_of(
    engine: Engine, package: ModelPackage, automatic: frozenset[str], inputs: Float32
) -> Golden:
    """Takes the maker's own inputs.

    Args:
        engine: the model, loaded.
        package: the maker's.
        automatic: keys of the findings whose operating point is chosen here.
        inputs: in the shape of the model's input.

    Raises:
        UnfitModelError: an operating point cannot be chosen.
        EngineError: the engine failed.
    """
    outputs = run_batches(engine, package.input, inputs)
    chosen = with_operating_points(package, _points(package, automatic, outputs))
    return Golden(
        package=chosen, inputs=inputs, outputs=outputs, one_sided=_one_sided(chosen, outputs)
    )


def make_golden(
    engine: Engine, package: ModelPackage, automatic: frozenset[str], *, seed: int
) -> Golden:
    """Draws inputs until every finding has some on both sides, or the rounds are over.

    Args:
        engine: the model, loaded.
        package: the maker's.
        automatic: keys of the findings whose operating point is chosen here.
        seed: decides the inputs.

    Raises:
        UnfitModelError: the model gives the same number for every input, or takes inputs of which
            two are too large for a file.
        EngineError: the engine failed.
    """
    draw = _Patterns(package, np.random.default_rng([seed, 59]))
    found = golden_of(engine, package, automatic, draw.fresh())
    for _ in range(ROUNDS):
        if not found.one_sided:
            return found
        more = draw.around(_best(found))
        outputs = run_batches(engine, package.input, more)
        found = _chosen(found, more, outputs, draw.most)
    return found


class _Patterns:
    """Draws inputs in the shape and range of a package's input."""

    def __init__(self, package: ModelPackage, rng: np.random.Generator) -> None:
        prepared = prepared_shape(package.preprocess)
        sizes = {"C": prepared.channels, "H": prepared.rows, "W": prepared.columns}
        if package.input.layout.is_volume:
            sizes["D"] = prepared.slices
        self._axes = package.input.layout.value[1:]
        self._shape = tuple(sizes[axis] for axis in self._axes)
        ranges = np.array(value_ranges(package.preprocess), np.float64)
        broad = [-1 if axis == "C" else 1 for axis in self._axes]
        self._low = ranges[:, 0].reshape(broad)
        self._span = (ranges[:, 1] - ranges[:, 0]).reshape(broad)
        self._rng = rng
        item_bytes = math.prod(self._shape) * np.dtype(np.float32).itemsize
        self.most = (MAX_GOLDEN_BYTES - HEADER_BYTES) // item_bytes
        if self.most < 2:  # noqa: PLR2004 - one on each side
            raise UnfitModelError(
                f"an item of the input takes {item_bytes} bytes; golden inputs take at most "
                f"{MAX_GOLDEN_BYTES}, and need two items"
            )
        self.count = min(self.most, max(FEWEST, min(MOST, MOST_BYTES // item_bytes)))

    def fresh(self) -> Float32:
        """Even pictures among finer and finer patterns, of different brightness."""
        coarseness = np.resize(COARSENESS, self.count)
        return np.stack([self._in_range(self._pattern(int(cells))) for cells in coarseness])

    def around(self, best: Float32) -> Float32:
        """Each of the best with another pattern mixed in."""
        bases = np.resize(np.arange(len(best)), self.count)
        return np.stack([self._in_range(self._varied(best[base])) for base in bases])

    def _varied(self, item: Float32) -> Float64:
        cells = int(self._rng.choice(COARSENESS))
        share = CHANGE * self._rng.random()
        unit: Float64 = (item - self._low) / np.where(self._span > 0, self._span, 1)
        mixed: Float64 = unit * (1 - share) + self._pattern(cells) * share
        return mixed

    def _pattern(self, cells: int) -> Float64:
        longest = max(
            size for axis, size in zip(self._axes, self._shape, strict=True) if axis != "C"
        )
        grid = tuple(
            size if axis == "C" else max(1, size * cells // longest)
            for axis, size in zip(self._axes, self._shape, strict=True)
        )
        pattern = self._rng.random(grid) ** np.exp(self._rng.normal(0, 1))
        for axis, (size, coarse) in enumerate(zip(self._shape, grid, strict=True)):
            pattern = pattern.take(np.arange(size) * coarse // size, axis=axis)
        drawn: Float64 = pattern
        return drawn

    def _in_range(self, unit: Float64) -> Float32:
        stepped = np.rint(np.clip(unit, 0, 1) * LEVELS) / LEVELS
        return (self._low + stepped * self._span).astype(np.float32)


def _probabilities(rule: FindingRule, outputs: Outputs) -> Float64:
    """Of each item; the mean where an item has several numbers."""
    items = len(outputs[rule.tensor])
    logits = item_logits(outputs, rule).reshape(items, -1).mean(axis=1)
    return np.array([calibrated_probability(float(logit), rule.calibration) for logit in logits])


def _points(package: ModelPackage, automatic: frozenset[str], outputs: Outputs) -> dict[str, float]:
    return {
        rule.key: _middle(rule, _probabilities(rule, outputs))
        for rule in package.findings
        if rule.key in automatic
    }


def _middle(rule: FindingRule, probabilities: Float64) -> float:
    """The middle of the widest gap amid the answers."""
    ordered = np.sort(probabilities)
    quarter = len(ordered) // 4
    gaps = np.diff(ordered)[quarter : len(ordered) - 1 - quarter]
    if gaps.max(initial=0.0) <= 0:
        gaps, quarter = np.diff(ordered), 0
    if gaps.max(initial=0.0) <= 0:
        raise UnfitModelError(
            f"the model gives the same number for {rule.key!r} whatever goes in; give inputs of "
            "your own with --inputs"
        )
    place = quarter + int(gaps.argmax())
    low, high = float(ordered[place]), float(ordered[place + 1])
    rounded = round((low + high) / 2, DIGITS)
    return rounded if low < rounded < high else (low + high) / 2


def _sides(rule: FindingRule, outputs: Outputs) -> NDArray[np.bool_]:
    probabilities = _probabilities(rule, outputs)
    suspected: NDArray[np.bool_] = probabilities >= rule.operating_point.threshold
    return suspected


def _one_sided(package: ModelPackage, outputs: Outputs) -> tuple[str, ...]:
    sides = ((rule.key, _sides(rule, outputs)) for rule in package.findings)
    return tuple(key for key, suspected in sides if suspected.all() or not suspected.any())


def _best(found: Golden) -> Float32:
    """For each finding that lies all on one side, the input that is nearest to the other."""
    places = []
    for key in found.one_sided:
        probabilities = _probabilities(found.package.finding(key), found.outputs)
        all_suspected = bool(_sides(found.package.finding(key), found.outputs).all())
        places.append(int(probabilities.argmin() if all_suspected else probabilities.argmax()))
    return found.inputs[sorted(set(places))]


def _chosen(found: Golden, more: Float32, more_outputs: Outputs, most: int) -> Golden:
    """As many inputs as before, with the extremes of every finding among them."""
    inputs = np.concatenate([found.inputs, more])
    outputs = {
        name: np.concatenate([array, more_outputs[name]]) for name, array in found.outputs.items()
    }
    extremes: dict[int, None] = {}
    pick: tuple[Callable[[Float64], np.intp], ...] = (np.argmax, np.argmin)
    # What is on one side only comes first, should there be more extremes than places.
    rules = sorted(found.package.findings, key=lambda rule: rule.key not in found.one_sided)
    for rule in rules:
        probabilities = _probabilities(rule, outputs)
        extremes |= {int(choose(probabilities)): None for choose in pick}
    for place in range(len(inputs)):
        extremes.setdefault(place, None)
    count = min(most, max(len(found.inputs), 2 * len(rules)))
    kept = sorted(list(extremes)[:count])
    picked = {name: array[kept] for name, array in outputs.items()}
    return Golden(
        package=found.package,
        inputs=inputs[kept],
        outputs=picked,
        one_sided=_one_sided(found.package, picked),
    )
