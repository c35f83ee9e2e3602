"""How inputs and scores are distributed: the window against which a drift monitor holds a site.

The quantities are of the network's input, so a device can measure each of them on every study
without keeping any pixel. The public data at hand holds next to no adults, so the shift that they
would bring is also imitated on the test radiographs: cut closer, narrower, with another film curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from engines.card import Quantile, Statistic
from tools.paediatric_cxr.disturb import Disturbance, disturb

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

FRACTIONS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
WINDOW = 50
"""Radiographs that a monitor looks at together: a day or a week of a site."""
KNOWN_WINDOWS, SHIFTED_WINDOWS = 4000, 500
QUANTITIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "input_mean": ("Mean of the input", "of the range"),
        "input_deviation": ("Deviation of the input", "of the range"),
        "input_edges": ("Mean step between neighbours", "of the range"),
        "input_symmetry": ("Likeness to its mirror image", "correlation"),
        "score": ("Score", "logit"),
    }
)
"""Label and unit of each quantity."""


def measure_inputs(pictures: Float32, logits: Float64) -> dict[str, Float64]:
    """The quantities of each picture.

    Args:
        pictures: (N, rows, columns), normalised to 0 to 1, before standardisation.
        logits: (N,) what the network said of them.
    """
    values = pictures.astype(np.float64)
    steps = [np.abs(np.diff(values, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    centred = values - values.mean(axis=(1, 2), keepdims=True)
    power = np.maximum((centred**2).sum(axis=(1, 2)), 1e-12)
    return {
        "input_mean": values.mean(axis=(1, 2)),
        "input_deviation": values.std(axis=(1, 2)),
        "input_edges": (steps[0] + steps[1]) / 2,
        "input_symmetry": (centred * centred[:, :, ::-1]).sum(axis=(1, 2)) / power,
        "score": logits,
    }


def statistics_of(measured: Mapping[str, Float64], *, key: str, population: str) -> list[Statistic]:
    """The distribution of each quantity in one population.

    Args:
        measured: by quantity.
        key: short name of the population.
        population: for people.
    """
    return [
        _statistic(f"{quantity}_{key}", *QUANTITIES[quantity], population, values)
        for quantity, values in measured.items()
    ]


def _statistic(key: str, label: str, unit: str, population: str, values: Float64) -> Statistic:
    return Statistic(
        key=key,
        label=label,
        unit=unit,
        population=population,
        cases=len(values),
        mean=round(float(values.mean()), 5),
        sd=round(float(values.std(ddof=1)) if len(values) > 1 else 0.0, 5),
        quantiles=tuple(
            Quantile(fraction=fraction, value=round(float(np.quantile(values, fraction)), 5))
            for fraction in (FRACTIONS if len(values) > 1 else (0.5,))
        ),
    )


def outside_reference(
    reference: Mapping[str, Float64], measured: Mapping[str, Float64]
) -> NDArray[np.bool_]:
    """Which cases have an input quantity outside the reference's 1st to 99th percentile.

    The score is left out: a shift that a monitor should see first is that of the input.
    """
    outside = np.zeros(len(measured["score"]), np.bool_)
    for quantity, values in measured.items():
        if quantity != "score":
            low, high = np.quantile(reference[quantity], (0.01, 0.99))
            outside |= (values < low) | (values > high)
    return outside


def windows_outside(
    reference: Mapping[str, Float64], measured: Mapping[str, Float64], *, seed: int
) -> NDArray[np.bool_]:
    """Which windows a monitor would report: one of the input's means is out of what it should be.

    Windows of ``WINDOW`` radiographs are drawn from both; the bounds are the 0.25th and 99.75th
    percentiles of the reference's window means, so that four measures together raise the alarm on
    some 2 % of windows without a shift.
    """
    rng = np.random.default_rng(seed)
    count = len(measured["score"])
    known = rng.integers(len(reference["score"]), size=(KNOWN_WINDOWS, WINDOW))
    drawn = rng.integers(count, size=(SHIFTED_WINDOWS, WINDOW))
    outside = np.zeros(SHIFTED_WINDOWS, np.bool_)
    for quantity, values in measured.items():
        if quantity != "score":
            usual = reference[quantity][known].mean(axis=1)
            low, high = np.percentile(usual, (0.25, 99.75))
            means = values[drawn].mean(axis=1)
            outside |= (means < low) | (means > high)
    return outside


def imitate_adult(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A child's radiograph in the manner of an adult's: cut closer, narrower, another curve."""
    cropped = disturb(pixels, Disturbance.CROP, 12)
    narrow = disturb(cropped, Disturbance.STRETCH, -20)
    return disturb(narrow, Disturbance.CONTRAST, 0.7)
