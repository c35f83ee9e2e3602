from __future__ import annotations

from pathlib import Path

import pytest

from engines.card import Evaluation
from engines.figures import read_figure
from engines.package import Calibration, OperatingPoint
from engines.shipped import shipped_packages
from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.dataset import DataSplit, find_radiographs, of_split
from tools.paediatric_cxr.disturb import Disturbance
from tools.paediatric_cxr.draw import write_pictures
from tools.paediatric_cxr.evaluate import FEWEST_OF_A_CLASS, main
from tools.paediatric_cxr.page import BEGIN, END, with_figures
from tools.paediatric_cxr.scoring import verified
from tools.paediatric_cxr.training_result import CALIBRATION_FILE, CalibrationResult


@pytest.fixture(scope="module")
def evaluation(
    drawn_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, Path]:
    """The shipped network on drawn chests."""
    work = tmp_path_factory.mktemp("work")
    shipped = shipped_packages()["paediatric_cxr_pneumonia"]
    (work / "model.onnx").write_bytes((shipped / "model.onnx").read_bytes())
    result = CalibrationResult(
        radiographs=1,
        patients=1,
        target_sensitivity=0.95,
        calibration=Calibration(slope=1.0, intercept=0.0),
        operating_point=OperatingPoint(threshold=0.5, allowed=(0.3, 0.7)),
    )
    (work / CALIBRATION_FILE).write_text(result.model_dump_json())
    main(["--data", str(drawn_data), "--work", str(work)])
    text = (work / "evaluation.json").read_text()
    return Evaluation.model_validate_json(text), work


def test_it_counts_test_patients_only(
    evaluation: tuple[Evaluation, Path], drawn_data: Path
) -> None:
    found, _ = evaluation
    test = of_split(find_radiographs(drawn_data), DataSplit.TEST)

    assert found.positives == sum(item.positive for item in test)
    assert found.positives + found.negatives == len(test)
    assert found.thresholds == {recipe.FINDING: 0.5}


def test_every_promised_figure_is_there(evaluation: tuple[Evaluation, Path]) -> None:
    found, _ = evaluation
    keys = {item.key for item in found.estimates}

    assert keys >= {"auc", "sensitivity", "specificity", "calibration_error", "patients_found"}
    assert keys >= {"auc_bacterial", "auc_viral", "shortcut_border", "occlusion_ring_share"}
    assert {curve.key for curve in found.curves} == {
        *("roc", "reliability"),
        *(f"robustness_{kind.value}" for kind in Disturbance),
    }
    assert {item.key for item in found.statistics} >= {"input_mean_reference", "score_imitated"}


def test_thirds_with_hardly_any_of_one_class_are_left_out(
    evaluation: tuple[Evaluation, Path],
) -> None:
    found, _ = evaluation
    thirds = [item for item in found.estimates if "third" in item.label]

    assert all(item.cases >= FEWEST_OF_A_CLASS for item in thirds)
    assert len(thirds) < 27


def test_an_undisturbed_point_is_the_plain_figure(evaluation: tuple[Evaluation, Path]) -> None:
    found, _ = evaluation
    auc = next(item.value for item in found.estimates if item.key == "auc")
    for curve in found.curves:
        if curve.key.startswith("robustness_") and curve.key != "robustness_jpeg":
            assert next(p.y for p in curve.points if p.x == 0) == auc


def test_its_pictures_are_plain_and_small(
    evaluation: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    write_pictures(evaluation[0], tmp_path)

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"examples.png", "roc.svg", "reliability.svg", "robustness.svg"}
    for path in tmp_path.iterdir():
        read_figure(verified(path))
        assert path.stat().st_size < 200_000


def test_the_page_takes_the_figures_and_keeps_the_rest(
    evaluation: tuple[Evaluation, Path],
) -> None:
    page = with_figures(f"before\n{BEGIN}old\n{END}after\n", evaluation[0])

    assert page.startswith(f"before\n{BEGIN}Version ")
    assert page.endswith(f"{END}after\n")
    assert "Area under the ROC curve" in page
    assert "old" not in page
    assert with_figures(page, evaluation[0]) == page


def test_a_page_without_its_marks_is_refused(evaluation: tuple[Evaluation, Path]) -> None:
    with pytest.raises(ValueError, match="must hold the lines"):
        with_figures("# A page\n", evaluation[0])
