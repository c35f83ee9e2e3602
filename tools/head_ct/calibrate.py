"""Make probabilities of an exported model's logits, and fix its operating point.

``python -m tools.head_ct.calibrate --work WORK --data CACHE`` writes ``calibration.json``. The
phantoms are others than those of training and test, and the logits come from the device's engine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.calibration import aggregate_logits
from engines.package import Aggregation, Calibration, OperatingPoint
from tools.figures_of_merit import platt
from tools.head_ct import recipe
from tools.head_ct.phantom_sets import PhantomSet
from tools.head_ct.scoring import outputs_of
from tools.head_ct.simulate import SimulatedStudy, simulate_set
from tools.head_ct.training_result import CALIBRATION_FILE, MODEL_FILE, CalibrationResult

TARGET_SENSITIVITY = 0.94
"""On the calibration phantoms. Beyond it each further bleed found costs needless flags out of all
proportion: a hundredth more, the target of version 1.0.0, costs a seventh of the specificity there
since slabs begin at fixed places."""
THRESHOLDS = (0.02, 0.9)
"""The operating point stays within these whatever the calibration phantoms say."""


def study_logits(model: Path, studies: Sequence[SimulatedStudy]) -> NDArray[np.float64]:
    """The study logit of each study, from the device's engine."""
    rule = Aggregation(top=recipe.TOP_SLABS)
    slabs = (outputs[recipe.OUTPUT.name] for outputs in outputs_of(model, studies))
    return np.array([aggregate_logits(logits.astype(np.float64), rule) for logits in slabs])


def calibrate(
    logits: NDArray[np.float64], positive: NDArray[np.bool_], *, target_sensitivity: float
) -> tuple[Calibration, OperatingPoint]:
    """Platt scaling, and the highest threshold that keeps the target sensitivity.

    The threshold lies half-way to the next lower healthy score, so that it does not hang on one
    phantom's bleed.
    """
    slope, intercept = platt(logits, positive)
    calibration = Calibration(slope=round(slope, 4), intercept=round(intercept, 4))
    chances = 1 / (1 + np.exp(-(calibration.slope * logits + calibration.intercept)))
    ill = np.sort(chances[positive])
    lowest_kept = float(ill[int(np.floor(len(ill) * (1 - target_sensitivity)))])
    below = chances[~positive & (chances < lowest_kept)]
    highest_below = float(below.max()) if below.size else 0.0
    threshold = round(float(np.clip((lowest_kept + highest_below) / 2, *THRESHOLDS)), 3)
    allowed = (round(threshold / 2, 3), round(threshold + 0.5 * (1 - threshold), 3))
    return calibration, OperatingPoint(threshold=threshold, allowed=allowed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the calibration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the trained model")
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps the phantoms")
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--matrix", type=int, default=256)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    studies = list(
        simulate_set(
            PhantomSet.CALIBRATION,
            options.phantoms,
            matrix=options.matrix,
            folder=options.data,
            processes=options.processes,
        )
    )
    calibration, operating_point = calibrate(
        study_logits(options.work / MODEL_FILE, studies),
        np.array([study.positive for study in studies]),
        target_sensitivity=TARGET_SENSITIVITY,
    )
    result = CalibrationResult(
        phantoms=options.phantoms,
        target_sensitivity=TARGET_SENSITIVITY,
        calibration=calibration,
        operating_point=operating_point,
    )
    (options.work / CALIBRATION_FILE).write_text(result.model_dump_json(indent=2) + "\n", "utf-8")
    print(result.model_dump_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
