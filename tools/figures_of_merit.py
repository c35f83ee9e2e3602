"""Figures of merit with their intervals, and the calibration of a score. Pure NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

Z_95 = 1.959964
"""Normal quantile of a two-sided 95 % interval."""
NEWTON_STEPS = 100
CONVERGED = 1e-10
RIDGE = 1e-3
"""Keeps the slope finite when scores separate the classes completely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval; all are fractions."""

    value: float
    lower: float
    upper: float
    cases: int


def proportion(successes: int, cases: int) -> Interval:
    """A proportion with Wilson's interval.

    Raises:
        ValueError: there are no cases, or more successes than cases.
    """
    if not 0 <= successes <= cases or cases == 0:
        raise ValueError(f"{successes} of {cases} is no proportion")
    share = successes / cases
    spread = Z_95**2 / cases
    centre = (share + spread / 2) / (1 + spread)
    reach = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / cases + spread / (4 * cases))
    return Interval(
        value=share,
        lower=min(share, max(0.0, centre - reach)),
        upper=max(share, min(1.0, centre + reach)),
        cases=cases,
    )


def area_under_roc(scores: Float64, positive: NDArray[np.bool_]) -> Interval:
    """Area under the ROC curve with DeLong's variance, the interval on the logit scale.

    At an area of exactly 1 DeLong's variance is 0; the rule of three on the smaller class then
    gives the lower end.

    Raises:
        ValueError: one class is missing.
    """
    ill, well = scores[positive], scores[~positive]
    if not len(ill) or not len(well):
        raise ValueError("an area under the curve needs both classes")
    # Midranks give both classes' placements without comparing every pair.
    ranks = _midranks(np.concatenate([ill, well]))
    place_ill = (ranks[: len(ill)] - _midranks(ill)) / len(well)
    place_well = 1 - (ranks[len(ill) :] - _midranks(well)) / len(ill)
    area = float(place_ill.mean())
    cases = len(scores)
    if area >= 1.0:
        floor = max(0.0, 1 - 3 / min(len(ill), len(well)))
        return Interval(value=1.0, lower=floor, upper=1.0, cases=cases)
    variance = _sample_variance(place_ill) / len(ill) + _sample_variance(place_well) / len(well)
    if area <= 0.0:
        return Interval(value=0.0, lower=0.0, upper=3 / min(len(ill), len(well)), cases=cases)
    middle = math.log(area / (1 - area))
    reach = Z_95 * math.sqrt(variance) / (area * (1 - area))
    lower, upper = (1 / (1 + math.exp(-(middle + sign * reach))) for sign in (-1, 1))
    return Interval(value=area, lower=lower, upper=upper, cases=cases)


def _sample_variance(values: Float64) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _midranks(values: Float64) -> Float64:
    """Ranks from 1; equal values share the middle of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middles: Float64 = (ends - (counts - 1) / 2)[inverse]
    return middles


def platt(logits: Float64, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of the outcome on a logit (Platt scaling).

    Targets are Platt's smoothed ones, so that separable classes do not give certainty.
    """
    ill = int(positive.sum())
    well = len(positive) - ill
    target = np.where(positive, (ill + 1) / (ill + 2), 1 / (well + 2))
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    weights = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -50, 50)))
        gradient = design.T @ (chance - target) + RIDGE * weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if float(np.abs(step).max()) < CONVERGED:
            break
    return float(weights[0]), float(weights[1])


def expected_calibration_error(
    probabilities: Float64, positive: NDArray[np.bool_], bins: int = 10
) -> float:
    """Mean distance between predicted and observed frequency over equal-width bins."""
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    error = 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            gap = abs(float(probabilities[inside].mean()) - float(positive[inside].mean()))
            error += gap * float(inside.mean())
    return error


def bootstrap(
    statistic: Callable[[Float64, NDArray[np.bool_]], float],
    scores: Float64,
    positive: NDArray[np.bool_],
    *,
    seed: int,
    rounds: int = 1000,
) -> Interval:
    """Percentile interval of a statistic over resampled cases."""
    rng = np.random.default_rng(seed)
    cases = len(scores)
    drawn = []
    for _ in range(rounds):
        chosen = rng.integers(cases, size=cases)
        drawn.append(statistic(scores[chosen], positive[chosen]))
    value = statistic(scores, positive)
    lower, upper = (float(v) for v in np.percentile(drawn, (2.5, 97.5)))
    return Interval(value=value, lower=min(lower, value), upper=max(upper, value), cases=cases)


@dataclass(frozen=True, slots=True, kw_only=True)
class BandPoint:
    """One point of a curve with the 95 % interval of its height."""

    x: float
    y: Interval


def roc_band(
    scores: Float64,
    positive: NDArray[np.bool_],
    *,
    seed: int,
    points: int = 101,
    rounds: int = 1000,
) -> tuple[BandPoint, ...]:
    """The ROC curve at evenly spaced false positive rates, with a pointwise bootstrap band.

    Cases are drawn within their class, so that every draw has both.

    Raises:
        ValueError: one class is missing.
    """
    ill, well = scores[positive], scores[~positive]
    if not len(ill) or not len(well):
        raise ValueError("a ROC curve needs both classes")
    rates: Float64 = np.linspace(0, 1, points, dtype=np.float64)
    heights = _sensitivity_at(ill, well, rates)
    rng = np.random.default_rng(seed)
    drawn = np.stack(
        [
            _sensitivity_at(rng.choice(ill, len(ill)), rng.choice(well, len(well)), rates)
            for _ in range(rounds)
        ]
    )
    lower, upper = np.percentile(drawn, (2.5, 97.5), axis=0)
    return tuple(
        BandPoint(
            x=float(rate),
            y=Interval(
                value=float(height),
                lower=min(float(low), float(height)),
                upper=max(float(high), float(height)),
                cases=len(ill),
            ),
        )
        for rate, height, low, high in zip(rates, heights, lower, upper, strict=True)
    )


def _sensitivity_at(ill: Float64, well: Float64, rates: Float64) -> Float64:
    """Highest sensitivity at which no more than each share of the healthy is flagged."""
    allowed = np.floor(rates * len(well) + 1e-9).astype(np.int64)
    falling = np.sort(well)[::-1]
    # Above the first healthy score that may not be flagged; all, where all may be.
    limits = np.concatenate([falling, [-np.inf]])[allowed]
    ranked = np.sort(ill)
    found: Float64 = 1 - np.searchsorted(ranked, limits, side="right") / len(ill)
    return found


def reliability(
    probabilities: Float64, positive: NDArray[np.bool_], bins: int = 10
) -> tuple[BandPoint, ...]:
    """Mean predicted probability against observed frequency, over equal-width bins with cases."""
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    return tuple(
        BandPoint(
            x=float(probabilities[place == number].mean()),
            y=proportion(int(positive[place == number].sum()), int((place == number).sum())),
        )
        for number in range(bins)
        if (place == number).any()
    )


def response(quantity: Float64, success: NDArray[np.bool_], bins: int = 8) -> tuple[BandPoint, ...]:
    """Share of successes over bins of a quantity with equally many cases, at their medians."""
    order = np.argsort(quantity, kind="stable")
    return tuple(
        BandPoint(
            x=float(np.median(quantity[part])),
            y=proportion(int(success[part].sum()), len(part)),
        )
        for part in np.array_split(order, bins)
        if len(part)
    )
