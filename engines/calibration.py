"""From a model's numbers to decisions. Pure.

A number that is not finite is never a negative result: it raises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineOutputError
from engines.package import Aggregation, Calibration, FindingRule

Float64 = NDArray[np.float64]

# A probability in float32 is never nearer to 0 or 1 than this, unless it is 0 or 1.
_LEAST_PROBABILITY = 1e-9
# Beyond 700 exp() overflows; the sigmoid is 0 or 1 in doubles long before.
_MOST_LOGIT = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the model says of one finding in a study."""

    key: str
    logit: float
    probability: float
    """Calibrated, 0 to 1."""
    threshold: float

    @property
    def suspected(self) -> bool:
        """Whether the probability reaches the operating point."""
        return self.probability >= self.threshold


def item_logits(outputs: Mapping[str, NDArray[np.float32]], rule: FindingRule) -> Float64:
    """Returns a finding's logits, one for each item of the model's input, in one dimension.

    Args:
        outputs: The engine's, by tensor name.
        rule: The package's.

    Raises:
        EngineOutputError: There are none, one is NaN or infinite, or a probability is none.
    """
    values = np.asarray(outputs[rule.tensor], dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise EngineOutputError("the model's outputs are empty, NaN or infinite")
    if rule.element is None:
        return _as_logits(values.ravel(), rule)
    classes = values.reshape(-1, values.shape[-1])
    if rule.scale == "softmax":
        return _against_the_others(classes, rule.element)
    return _as_logits(classes[:, rule.element], rule)


def _as_logits(values: Float64, rule: FindingRule) -> Float64:
    if rule.scale != "probability":
        return values
    if values.min() < 0 or values.max() > 1:
        raise EngineOutputError(f"finding {rule.key!r}: a probability is not between 0 and 1")
    inside = np.clip(values, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    logits: Float64 = np.log(inside) - np.log1p(-inside)
    return logits


def _against_the_others(classes: Float64, element: int) -> Float64:
    others = np.delete(classes, element, axis=1)
    if others.shape[1] == 0:
        raise EngineOutputError("softmax of one class says nothing")
    highest = others.max(axis=1)
    logits: Float64 = (
        classes[:, element] - highest - np.log(np.exp(others - highest[:, None]).sum(axis=1))
    )
    return logits


def aggregate_logits(logits: Float64, rule: Aggregation) -> float:
    """Returns the mean of the ``rule.top`` largest logits, or of all when there are fewer."""
    top = min(rule.top, logits.size)
    # fsum: the mean does not depend on the order in which a partition leaves the largest.
    return math.fsum(np.partition(logits, -top)[-top:]) / top


def calibrated_probability(logit: float, calibration: Calibration) -> float:
    """Returns sigmoid(slope * logit + intercept).

    Raises:
        EngineOutputError: The logit is NaN or infinite.
    """
    if not math.isfinite(logit):
        raise EngineOutputError("the model's logit is NaN or infinite")
    scaled = calibration.slope * logit + calibration.intercept
    return 1.0 / (1.0 + math.exp(-min(max(scaled, -_MOST_LOGIT), _MOST_LOGIT)))


def decide(
    outputs: Mapping[str, NDArray[np.float32]],
    rule: FindingRule,
    *,
    threshold: float | None = None,
) -> Decision:
    """Turns the outputs for all items of a study into the decision on one finding.

    Args:
        outputs: The engine's, by tensor name.
        rule: The package's.
        threshold: The site's operating point; None: the package's.

    Raises:
        EngineOutputError: As ``item_logits``.
    """
    return decide_logits(item_logits(outputs, rule), rule, threshold=threshold)


def decide_logits(
    logits: Float64, rule: FindingRule, *, threshold: float | None = None
) -> Decision:
    """The same from the items' logits, as ``item_logits`` returns them."""
    logit = aggregate_logits(logits, rule.aggregation)
    return Decision(
        key=rule.key,
        logit=logit,
        probability=calibrated_probability(logit, rule.calibration),
        threshold=rule.operating_point.threshold if threshold is None else threshold,
    )


def suspected_items(
    outputs: Mapping[str, NDArray[np.float32]], rule: FindingRule
) -> NDArray[np.bool_]:
    """Says of each item whether it alone would be suspected, at the package's operating point.

    Raises:
        EngineOutputError: As ``item_logits``.
    """
    return np.array(
        [
            calibrated_probability(float(logit), rule.calibration) >= rule.operating_point.threshold
            for logit in item_logits(outputs, rule)
        ],
        dtype=np.bool_,
    )
