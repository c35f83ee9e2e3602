"""The test set with what the model said of it, and how figures of it are written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.card import CurvePoint, Estimate
from engines.package import ModelPackage
from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.dataset import Cause, Radiograph, read_pixels
from tools.paediatric_cxr.metrics import Interval, PatientBootstrap
from tools.paediatric_cxr.scoring import probabilities, scorer

Mask = NDArray[np.bool_]

BOOTSTRAP_SEED = 20_260_115


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCases:
    """The test radiographs and what the model said of them, in the same order throughout."""

    radiographs: tuple[Radiograph, ...]
    pixels: tuple[NDArray[np.uint8], ...]
    logits: NDArray[np.float64]
    chances: NDArray[np.float64]
    suspected: Mask
    draws: PatientBootstrap

    @property
    def positive(self) -> Mask:
        """Labelled pneumonia."""
        return np.array([item.positive for item in self.radiographs])

    def caused_by(self, cause: Cause) -> Mask:
        """Labelled so."""
        return np.array([item.cause is cause for item in self.radiographs])


def score_test_set(
    radiographs: Sequence[Radiograph], model: Path, package: ModelPackage
) -> TestCases:
    """Run the model over the radiographs."""
    pixels = tuple(read_pixels(item.path) for item in radiographs)
    with scorer(model) as loaded:
        logits = loaded.of_radiographs(pixels)
    rule = package.finding(recipe.FINDING)
    chances = probabilities(logits, rule.calibration)
    return TestCases(
        radiographs=tuple(radiographs),
        pixels=pixels,
        logits=logits,
        chances=chances,
        suspected=chances >= rule.operating_point.threshold,
        draws=PatientBootstrap([item.patient for item in radiographs], seed=BOOTSTRAP_SEED),
    )


def point(x: float, y: Interval) -> CurvePoint:
    """A point of a curve, rounded for the file."""
    lower, upper = _outwards(y)
    return CurvePoint(x=round(x, 5), y=round(y.value, 4), lower=lower, upper=upper, cases=y.cases)


def estimate(key: str, label: str, interval: Interval, group: str | None = None) -> Estimate:
    """A figure, its interval rounded outwards: none is told narrower than it is."""
    lower, upper = _outwards(interval)
    return Estimate(
        key=key,
        label=label,
        group=group,
        value=round(interval.value, 4),
        lower=max(0.0, lower),
        upper=min(1.0, upper),
        cases=interval.cases,
    )


def _outwards(interval: Interval) -> tuple[float, float]:
    lower = float(np.floor(interval.lower * 1e4) / 1e4)
    return lower, float(np.ceil(interval.upper * 1e4) / 1e4)
