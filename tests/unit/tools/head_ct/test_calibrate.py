from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.head_ct.calibrate import calibrate, main
from tools.head_ct.training_result import CALIBRATION_FILE, CalibrationResult, read_manifest


def scores(
    seed: int,
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.bool_]]
]:
    rng = np.random.default_rng(seed)
    positive = np.arange(400) % 2 == 0
    return rng.normal(0, 2, 400) + 4 * positive, positive


@pytest.mark.parametrize("target", [0.8, 0.95])
def test_the_threshold_keeps_the_target_sensitivity(target: float) -> None:
    logits, positive = scores(1)
    calibration, point = calibrate(logits, positive, target_sensitivity=target)
    chances = 1 / (1 + np.exp(-(calibration.slope * logits + calibration.intercept)))

    assert target <= (chances[positive] >= point.threshold).mean() <= target + 0.03


def test_the_bounds_lie_around_the_threshold() -> None:
    _, point = calibrate(*scores(1), target_sensitivity=0.95)
    low, high = point.allowed

    assert low < point.threshold < high < 1


def test_complete_separation_still_gives_a_point_between_the_classes() -> None:
    logits, positive = np.array([-5.0, -4.0, 4.0, 5.0]), np.array([False, False, True, True])
    calibration, point = calibrate(logits, positive, target_sensitivity=0.95)
    chances = 1 / (1 + np.exp(-(calibration.slope * logits + calibration.intercept)))

    assert chances[1] < point.threshold < chances[2]


def test_the_step_writes_what_the_package_needs(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((shipped / "model.onnx").read_bytes())

    main(
        [
            "--work",
            str(tmp_path),
            "--data",
            str(tmp_path / "phantoms"),
            "--phantoms",
            "20",
            "--matrix",
            "64",
            "--processes",
            "1",
        ]
    )

    result = CalibrationResult.model_validate_json((tmp_path / CALIBRATION_FILE).read_text())
    assert result.phantoms == 20
    assert read_manifest(tmp_path).findings[0].operating_point == result.operating_point
