"""From a model's logits to a decision. Pure.

A number that is not finite is never a negative result: it raises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineOutputError
from engines.package import Aggregation, Calibration, FindingOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the model says of a study."""

    logit: float
    probability: float
    """Calibrated, 0 to 1."""
    suspected: bool


def aggregate_logits(logits: NDArray[np.float32], rule: Aggregation) -> float:
    """Returns the mean of the ``rule.top`` largest logits, or of all when there are fewer.

    Args:
        logits: One for each slab, in any shape.
        rule: The package's.

    Raises:
        EngineOutputError: There are none, or one is NaN or infinite.
    """
    values = np.asarray(logits, dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise EngineOutputError("the model's logits are empty, NaN or infinite")
    top = min(rule.top, values.size)
    # fsum: the mean does not depend on the order in which a partition leaves the largest.
    return math.fsum(np.partition(values, -top)[-top:]) / top


def calibrated_probability(logit: float, calibration: Calibration) -> float:
    """Returns sigmoid(slope * logit + intercept).

    Raises:
        EngineOutputError: The logit is NaN or infinite.
    """
    if not math.isfinite(logit):
        raise EngineOutputError("the model's logit is NaN or infinite")
    # Beyond 700 exp() overflows; the sigmoid is 0 or 1 in doubles long before.
    scaled = min(max(calibration.slope * logit + calibration.intercept, -700.0), 700.0)
    return 1.0 / (1.0 + math.exp(-scaled))


def decide(logits: NDArray[np.float32], output: FindingOutput) -> Decision:
    """Turns the logits of a study's slabs into the package's decision.

    Raises:
        EngineOutputError: The logits are empty, NaN or infinite.
    """
    logit = aggregate_logits(logits, output.aggregation)
    probability = calibrated_probability(logit, output.calibration)
    return Decision(
        logit=logit,
        probability=probability,
        suspected=probability >= output.operating_point.threshold,
    )


def suspected_elements(logits: NDArray[np.float32], output: FindingOutput) -> NDArray[np.bool_]:
    """Says of each logit, in its shape, whether it alone would be suspected.

    Raises:
        EngineOutputError: One is NaN or infinite.
    """
    flags = [
        calibrated_probability(float(logit), output.calibration) >= output.operating_point.threshold
        for logit in np.ravel(logits)
    ]
    return np.array(flags, dtype=np.bool_).reshape(np.shape(logits))
