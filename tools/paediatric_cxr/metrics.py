"""Figures of merit with intervals over patients, curves with bands, and groups. Pure NumPy.

Radiographs of one child resemble each other, so intervals come from drawing patients, not
radiographs: all of a drawn patient's radiographs come with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.figures_of_merit import proportion

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
Statistic = Callable[[NDArray[np.int64]], float]
"""A number of the radiographs whose places are given; NaN when they are too few."""

ROUNDS = 1000
LEVEL = (2.5, 97.5)
"""Percentiles of a 95 % interval."""
MIN_ROUNDS = 100
"""Below it, so many draws lacked a class that there is no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    lower: float
    upper: float
    cases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """One bin of a reliability diagram."""

    predicted: float
    observed: Interval


class PatientBootstrap:
    """The same draws of patients for every statistic, so that numbers can be compared."""

    def __init__(self, patients: Sequence[str], *, seed: int, rounds: int = ROUNDS) -> None:
        """Draw.

        Args:
            patients: of each radiograph.
            seed: decides the draws.
            rounds: number of draws.
        """
        _, owner = np.unique(np.asarray(patients), return_inverse=True)
        self._members = [np.flatnonzero(owner == number) for number in range(int(owner.max()) + 1)]
        rng = np.random.default_rng(seed)
        self._draws = [self._draw(rng) for _ in range(rounds)]
        self._all = np.arange(len(owner))

    def _draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        chosen = rng.integers(len(self._members), size=len(self._members))
        return np.concatenate([self._members[number] for number in chosen])

    def interval(self, statistic: Statistic, *, among: Mask | None = None) -> Interval:
        """The statistic of all radiographs (``among`` those given) with its interval.

        Raises:
            ValueError: there are too few radiographs for it.
        """
        group = np.ones(len(self._all), np.bool_) if among is None else among
        value = statistic(self._all[group])
        drawn = np.array([statistic(draw[group[draw]]) for draw in self._draws])
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(value) or len(drawn) < min(MIN_ROUNDS, len(self._draws)):
            raise ValueError("too few radiographs for this figure")
        lower, upper = (float(v) for v in np.percentile(drawn, LEVEL))
        return Interval(
            value=value, lower=min(lower, value), upper=max(upper, value), cases=int(group.sum())
        )

    def band(self, curve: Callable[[NDArray[np.int64]], Float64]) -> list[Interval]:
        """Several numbers that are worked out together, each with its interval."""
        values = curve(self._all)
        drawn = np.stack([curve(draw) for draw in self._draws])
        ends = np.nanpercentile(drawn, LEVEL, axis=0)
        return [
            Interval(
                value=float(value),
                lower=min(float(lower), float(value)),
                upper=max(float(upper), float(value)),
                cases=len(self._all),
            )
            for value, lower, upper in zip(values, *ends, strict=True)
        ]


def counted(successes: int, cases: int) -> Interval:
    """A proportion of cases that stand for themselves, with Wilson's interval.

    Raises:
        ValueError: there are no cases, or more successes than cases.
    """
    found = proportion(successes, cases)
    return Interval(value=found.value, lower=found.lower, upper=found.upper, cases=found.cases)


def area(scores: Float64, positive: Mask) -> Statistic:
    """Area under the ROC curve, ties counted half."""

    def statistic(chosen: NDArray[np.int64]) -> float:
        ill, well = scores[chosen][positive[chosen]], np.sort(scores[chosen][~positive[chosen]])
        if not len(ill) or not len(well):
            return float("nan")
        below = np.searchsorted(well, ill, "left") + np.searchsorted(well, ill, "right")
        return float(below.mean()) / (2 * len(well))

    return statistic


def share(claims: Mask) -> Statistic:
    """How many of the radiographs a claim holds of."""

    def statistic(chosen: NDArray[np.int64]) -> float:
        return float(claims[chosen].mean()) if len(chosen) else float("nan")

    return statistic


def mean_of(values: Float64) -> Statistic:
    """Mean of a number over the radiographs."""

    def statistic(chosen: NDArray[np.int64]) -> float:
        return float(values[chosen].mean()) if len(chosen) else float("nan")

    return statistic


def calibration_error(probabilities: Float64, positive: Mask, bins: int = 10) -> Statistic:
    """Mean distance between predicted and observed frequency over equal-width bins."""
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)

    def statistic(chosen: NDArray[np.int64]) -> float:
        if not len(chosen):
            return float("nan")
        counts = np.bincount(place[chosen], minlength=bins)
        gaps = np.bincount(place[chosen], (probabilities - positive)[chosen], minlength=bins)
        return float(np.abs(gaps).sum() / counts.sum())

    return statistic


def roc_points(
    scores: Float64, positive: Mask, draws: PatientBootstrap, *, places: int = 51
) -> list[tuple[float, Interval]]:
    """Sensitivity with its band at evenly spaced false-positive rates."""
    rates = np.linspace(0, 1, places)

    def sensitivities(chosen: NDArray[np.int64]) -> Float64:
        ill, well = scores[chosen][positive[chosen]], np.sort(scores[chosen][~positive[chosen]])
        if not len(ill) or not len(well):
            return np.full(places, np.nan)
        allowed = np.floor(rates * len(well) + 1e-9).astype(np.int64)
        # Everything above the first healthy score that may no longer be flagged.
        bounds = np.concatenate([[-np.inf], well])[len(well) - allowed]
        ranked = np.sort(ill)
        return np.asarray(1 - np.searchsorted(ranked, bounds, side="right") / len(ill))

    return list(zip(rates.tolist(), draws.band(sensitivities), strict=True))


def reliability_bins(
    probabilities: Float64, positive: Mask, draws: PatientBootstrap, *, bins: int = 10
) -> list[Bin]:
    """Observed against predicted frequency; bins hold equally many radiographs.

    Equal-width bins would leave all but the outermost nearly empty where a model is sure.
    """
    edges = np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, probabilities, side="right")
    found = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            observed = draws.interval(share(positive), among=inside)
            found.append(Bin(predicted=float(probabilities[inside].mean()), observed=observed))
    return found


def tertiles(values: Float64) -> tuple[Mask, Mask, Mask]:
    """The lowest, middle and highest third."""
    low, high = np.quantile(values, (1 / 3, 2 / 3))
    return values <= low, (values > low) & (values <= high), values > high
