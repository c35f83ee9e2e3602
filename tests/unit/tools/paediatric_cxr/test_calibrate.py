from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.shipped import shipped_packages
from tools.paediatric_cxr.calibrate import calibrate, main
from tools.paediatric_cxr.dataset import DataSplit, find_radiographs, of_split
from tools.paediatric_cxr.scoring import probabilities
from tools.paediatric_cxr.training_result import (
    CALIBRATION_FILE,
    CalibrationResult,
    read_manifest,
)


@pytest.mark.parametrize("target", [0.8, 0.95])
def test_the_threshold_keeps_the_target_sensitivity(target: float) -> None:
    rng = np.random.default_rng(1)
    positive = np.arange(400) % 2 == 0
    logits = rng.normal(0, 2, 400) + 4 * positive
    calibration, point = calibrate(logits, positive, target_sensitivity=target)
    chances = probabilities(logits, calibration)

    assert target <= (chances[positive] >= point.threshold).mean() <= target + 0.03
    assert point.allowed[0] < point.threshold < point.allowed[1] < 1


def test_complete_separation_gives_a_point_between_the_classes() -> None:
    logits, positive = np.array([-5.0, -4.0, 4.0, 5.0]), np.array([False, False, True, True])
    calibration, point = calibrate(logits, positive, target_sensitivity=0.95)
    chances = probabilities(logits, calibration)

    assert chances[1] < point.threshold < chances[2]


def test_the_step_looks_at_calibration_patients_only(drawn_data: Path, tmp_path: Path) -> None:
    shipped = shipped_packages()["paediatric_cxr_pneumonia"]
    (tmp_path / "model.onnx").write_bytes((shipped / "model.onnx").read_bytes())

    main(["--data", str(drawn_data), "--work", str(tmp_path)])

    found = CalibrationResult.model_validate_json((tmp_path / CALIBRATION_FILE).read_text())
    wanted = of_split(find_radiographs(drawn_data), DataSplit.CALIBRATION)
    assert found.radiographs == len(wanted)
    assert found.patients == len({item.patient for item in wanted})
    rule = read_manifest(tmp_path).findings[0]
    assert (rule.calibration, rule.operating_point) == (found.calibration, found.operating_point)
