from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from engines.card import CurveKind, Evaluation
from engines.package import Calibration, OperatingPoint
from tools.head_ct import recipe
from tools.head_ct.evaluate import Scored, main, summarise
from tools.head_ct.simulate import SimulatedStudy
from tools.head_ct.training_result import CALIBRATION_FILE, CalibrationResult
from tools.phantoms.spec import BleedKind

PACKAGE = recipe.manifest(
    Calibration(slope=1.0, intercept=0.0), OperatingPoint(threshold=0.5, allowed=(0.3, 0.7))
)


def scored(
    kind: BleedKind | None, *, suspected: bool, volume_ml: float = 5.0, plastic: bool = False
) -> Scored:
    study = SimulatedStudy(
        seed=1,
        kind=kind,
        plastic=plastic,
        volume_ml=volume_ml if kind else 0.0,
        contrast_hu=25.0 if kind else 0.0,
        noise_hu=4.0,
        spacing_mm=5.0,
        tilt_deg=0.4,
        slab_hu=np.zeros((1, 2, 2), np.float32),
        slab_ml=np.zeros(1, np.float32),
    )
    return Scored(
        study=study,
        logit=2.0 if suspected else -2.0,
        probability=0.88 if suspected else 0.12,
        suspected=suspected,
    )


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"weights")
    cases = [
        scored(BleedKind.SUBDURAL, suspected=True),
        scored(BleedKind.SUBDURAL, suspected=True, volume_ml=30.0),
        scored(BleedKind.EPIDURAL, suspected=False, volume_ml=0.5),
        scored(None, suspected=False),
        scored(None, suspected=False),
        scored(None, suspected=True, plastic=True),
    ]
    return summarise(cases, PACKAGE, model)


def test_groups_are_counted_apart(evaluation: Evaluation) -> None:
    values = {item.key: (item.value, item.cases) for item in evaluation.estimates}

    assert values["sensitivity"] == (0.6667, 3)
    assert values["sensitivity_subdural"] == (1.0, 2)
    assert values["sensitivity_epidural"] == (0.0, 1)
    assert values["sensitivity_under_1_ml"] == (0.0, 1)
    assert values["sensitivity_3_to_10_ml"] == (1.0, 1)
    assert values["sensitivity_over_30_ml"] == (1.0, 1)
    assert values["sensitivity_20_to_30_hu"] == (0.6667, 3)
    assert values["sensitivity_tilt_under_half"] == (0.6667, 3)


def test_plastic_phantoms_do_not_count_as_heads(evaluation: Evaluation) -> None:
    values = {item.key: (item.value, item.cases) for item in evaluation.estimates}

    assert values["specificity"] == (1.0, 2)
    assert values["specificity_plastic"] == (0.0, 1)
    assert values["auc"][1] == 5
    assert (evaluation.positives, evaluation.negatives) == (3, 3)


def test_groups_without_cases_are_left_out(evaluation: Evaluation) -> None:
    assert "sensitivity_thin_slices" not in {item.key for item in evaluation.estimates}


def test_groups_of_one_kind_stand_in_one_table(evaluation: Evaluation) -> None:
    titles = {item.key: item.group for item in evaluation.estimates}

    assert titles["sensitivity"] is titles["specificity"] is titles["auc"] is None
    assert titles["sensitivity_subdural"] == "Sensitivity by type of bleed"
    assert titles["specificity_thick_slices"] == "Specificity by slice thickness"


def test_the_curves_are_those_of_the_figures(evaluation: Evaluation) -> None:
    curves = {curve.key: curve for curve in evaluation.curves}

    assert curves["roc"].kind is CurveKind.ROC
    assert (curves["roc"].points[0].x, curves["roc"].points[-1].y) == (0.0, 1.0)
    assert [point.cases for point in curves["reliability"].points] == [3, 2]
    assert [point.y for point in curves["sensitivity_by_volume"].points] == [0.0, 1.0, 1.0]


def test_the_statistics_tell_what_the_test_set_is_made_of(evaluation: Evaluation) -> None:
    statistics = {item.key: item for item in evaluation.statistics}

    assert (statistics["volume"].cases, statistics["noise"].cases) == (3, 6)
    assert statistics["volume"].quantiles[2].value == pytest.approx(5.0)


def test_the_evaluation_names_the_model_and_its_operating_point(evaluation: Evaluation) -> None:
    assert evaluation.model_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert evaluation.thresholds == {"ich": 0.5}
    assert evaluation.model_version == recipe.VERSION


def test_the_step_scores_unseen_phantoms_with_the_devices_engine(
    shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes((shipped / "model.onnx").read_bytes())
    calibrated = CalibrationResult(
        phantoms=1,
        target_sensitivity=0.95,
        calibration=PACKAGE.findings[0].calibration,
        operating_point=PACKAGE.findings[0].operating_point,
    )
    (tmp_path / CALIBRATION_FILE).write_text(calibrated.model_dump_json())

    main(
        [
            "--work",
            str(tmp_path),
            "--data",
            str(tmp_path / "phantoms"),
            "--phantoms",
            "20",
            "--matrix",
            "128",
            "--processes",
            "1",
        ]
    )

    found = Evaluation.model_validate_json((tmp_path / "evaluation.json").read_text())
    estimates = {item.key: item for item in found.estimates}
    assert (found.positives, found.negatives) == (10, 10)
    assert estimates["gate_accepts"].value == estimates["gate_refuses_tilt"].value == 1.0
    assert "Area under the ROC curve" in capsys.readouterr().out
