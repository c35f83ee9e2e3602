"""Make probabilities of an exported model's logits, and fix its operating point.

``python -m tools.paediatric_cxr.calibrate --data DATA --work WORK`` writes ``calibration.json``.
The patients are others than those of training and test.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.package import Calibration, OperatingPoint
from tools.figures_of_merit import platt
from tools.paediatric_cxr.dataset import DataSplit, find_radiographs, of_split, read_pixels
from tools.paediatric_cxr.scoring import probabilities, scorer
from tools.paediatric_cxr.training_result import (
    CALIBRATION_FILE,
    MODEL_FILE,
    CalibrationResult,
)

TARGET_SENSITIVITY = 0.97
"""On the calibration patients. A child with pneumonia that is not flagged waits like everybody
else, one that is flagged for nothing costs a minute; fixed before any test patient was scored."""
THRESHOLDS = (0.02, 0.95)
"""The operating point stays within these whatever the calibration patients say."""


def calibrate(
    logits: NDArray[np.float64], positive: NDArray[np.bool_], *, target_sensitivity: float
) -> tuple[Calibration, OperatingPoint]:
    """Platt scaling, and the highest threshold that keeps the target sensitivity.

    The threshold lies half-way to the next lower healthy score, so that it does not hang on one
    radiograph.
    """
    slope, intercept = platt(logits, positive)
    calibration = Calibration(slope=round(slope, 4), intercept=round(intercept, 4))
    chances = probabilities(logits, calibration)
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
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--work", type=Path, required=True, help="folder with the trained model")
    options = parser.parse_args(arguments)
    radiographs = of_split(find_radiographs(options.data), DataSplit.CALIBRATION)
    positive = np.array([item.positive for item in radiographs])
    with scorer(options.work / MODEL_FILE) as model:
        logits = model.of_radiographs([read_pixels(item.path) for item in radiographs])
    calibration, operating_point = calibrate(
        logits, positive, target_sensitivity=TARGET_SENSITIVITY
    )
    result = CalibrationResult(
        radiographs=len(radiographs),
        patients=len({item.patient for item in radiographs}),
        target_sensitivity=TARGET_SENSITIVITY,
        calibration=calibration,
        operating_point=operating_point,
    )
    (options.work / CALIBRATION_FILE).write_text(result.model_dump_json(indent=2) + "\n", "utf-8")
    print(result.model_dump_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
