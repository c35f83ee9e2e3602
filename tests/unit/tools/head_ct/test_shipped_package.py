"""The package as it lies in the tree: in order, small, and true to its promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from edge_runtime.model.finding import Refused, Scored
from edge_runtime.pipeline.trial import examine
from engines.backends import open_engine
from engines.contract import Backend, Engine, EngineOptions
from engines.golden_studies import GoldenOutcome, load_golden_studies
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages
from engines.steps import can_stream
from engines.verifying import verify_package
from tools.head_ct import recipe
from tools.head_ct.build_package import LOGARITHMIC
from tools.head_ct.golden import CARRIED, DRAWN, Promise, outcome_of
from tools.head_ct.page import with_figures
from tools.head_ct.pictures import curve_svg
from tools.phantoms.spec import BleedKind
from tools.phantoms.variants import REFUSALS, write_study

FOLDER = shipped_packages()["head_ct_phantom"]
PAGE = Path(__file__).parents[4] / "docs" / "models" / "head_ct.md"


@pytest.fixture(scope="module")
def package() -> LoadedPackage:
    return load_package(FOLDER)


@pytest.fixture(scope="module")
def engine(package: LoadedPackage) -> Iterator[Engine]:
    with open_engine(Backend.ONNXRUNTIME, package.model, EngineOptions()) as engine:
        yield engine


def test_it_passes_all_checks_of_a_device() -> None:
    assert verify_package(FOLDER, Backend.ONNXRUNTIME, EngineOptions()).holds


def test_package_toml_is_what_the_recipe_writes(package: LoadedPackage) -> None:
    (finding,) = package.manifest.findings

    assert package.manifest == recipe.manifest(finding.calibration, finding.operating_point)


def test_it_runs_while_a_study_arrives(package: LoadedPackage) -> None:
    assert can_stream(package.manifest.preprocess)


def test_it_says_what_it_is(package: LoadedPackage) -> None:
    manifest, card = package.manifest, package.card

    assert manifest.demonstration
    assert "no patient" in manifest.disclaimer
    assert "not a cleared medical device" in manifest.disclaimer
    assert card.release.stage.value == "demonstration"
    assert any("no patient" in text for text in card.disclaimers)


def test_it_is_small() -> None:
    assert (FOLDER / "model.onnx").stat().st_size <= 2_000_000
    assert all(path.stat().st_size <= 100_000 for path in FOLDER.glob("figures/*"))
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 4_000_000


def test_every_estimate_rests_on_unseen_phantoms(package: LoadedPackage) -> None:
    evaluation = package.evaluation

    assert evaluation.positives >= 300
    assert evaluation.negatives >= 300
    assert {estimate.key for estimate in evaluation.estimates} >= {
        "auc",
        "sensitivity",
        "specificity",
        *(f"sensitivity_{kind.value}" for kind in BleedKind),
    }


def test_figures_and_page_are_those_of_the_evaluation(package: LoadedPackage) -> None:
    page = PAGE.read_text("utf-8")

    assert with_figures(page, package.evaluation) == page
    for curve in package.evaluation.curves:
        drawn = curve_svg(curve, log_x=curve.key in LOGARITHMIC)
        for folder in (FOLDER / "figures", PAGE.with_suffix("")):
            assert (folder / f"{curve.key}.svg").read_text("utf-8") == drawn


def test_a_page_without_its_marks_is_refused(package: LoadedPackage) -> None:
    with pytest.raises(ValueError, match="must hold the lines"):
        with_figures("# A page\n", package.evaluation)


def test_the_carried_studies_are_the_generators(package: LoadedPackage) -> None:
    carried = {each.study.folder: each.files for each in load_golden_studies(package)}

    assert sorted(carried) == sorted(promise.folder for promise in CARRIED)
    for promise in CARRIED:
        stored = sorted(file.path for file in carried[promise.folder])
        for path, drawn in zip(stored, promise.plan().datasets(), strict=True):
            found = pydicom.dcmread(path)
            # Another processor may round another way, but no header, and no pixel by more than 1.
            assert np.abs(found.pixel_array - drawn.pixel_array.astype(int)).max() <= 1
            del found.PixelData, drawn.PixelData
            assert found == drawn


def test_carried_studies_come_out_as_promised(package: LoadedPackage, engine: Engine) -> None:
    for each in load_golden_studies(package):
        result = examine([file.path for file in each.files], package.manifest, engine)
        if each.study.outcome is GoldenOutcome.NOT_ANALYSED:
            assert isinstance(result, Refused)
            assert result.reason.value == each.study.reason
        else:
            assert isinstance(result, Scored)
            assert result.suspected is (each.study.outcome is GoldenOutcome.SUSPECTED)
            (finding,) = each.study.findings
            assert result.leading.probability == pytest.approx(
                finding.probability, abs=finding.tolerance
            )


@pytest.mark.parametrize("promise", DRAWN, ids=lambda promise: promise.folder)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, of attributes that lack a value
def test_drawn_studies_come_out_as_promised(
    promise: Promise, package: LoadedPackage, engine: Engine, tmp_path: Path
) -> None:
    study = promise.plan()
    result = examine(write_study(study, tmp_path), package.manifest, engine)

    assert outcome_of(result) == (study.expectation, REFUSALS.get(study.name))
