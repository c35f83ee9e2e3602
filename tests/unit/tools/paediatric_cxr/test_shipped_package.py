"""The package as it lies in the tree: in order, small, and true to its promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.model.finding import Refused, Scored
from edge_runtime.pipeline.answers import CheckStatus
from edge_runtime.pipeline.trial import examine
from edge_runtime.pipeline.verification import run_checks
from engines.backends import open_engine
from engines.contract import Backend, Engine, EngineOptions
from engines.golden import load_golden
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages
from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.build_package import PROMISED_STUDIES, golden_pictures
from tools.paediatric_cxr.draw import example_picture
from tools.paediatric_cxr.page import with_figures
from tools.phantoms.chest_spec import OpacityKind
from tools.phantoms.chest_studies import ChestName, make_chest_study, write_chest_study

FOLDER = shipped_packages()["paediatric_cxr_pneumonia"]
DOCS = Path(__file__).parents[4] / "docs" / "models"


@pytest.fixture(scope="module")
def package() -> LoadedPackage:
    return load_package(FOLDER)


@pytest.fixture(scope="module")
def engine(package: LoadedPackage) -> Iterator[Engine]:
    with open_engine(Backend.ONNXRUNTIME, package.model, EngineOptions()) as engine:
        yield engine


def test_it_passes_all_checks_of_a_stranger() -> None:
    answers = list(run_checks(FOLDER, Backend.ONNXRUNTIME, EngineOptions()))

    assert {answer.status for answer in answers} == {CheckStatus.OK}, answers


def test_package_toml_is_what_the_recipe_writes(package: LoadedPackage) -> None:
    rule = package.manifest.findings[0]

    assert package.manifest == recipe.manifest(rule.calibration, rule.operating_point)


def test_it_says_what_it_is(package: LoadedPackage) -> None:
    manifest, card = package.manifest, package.card

    assert manifest.demonstration
    assert "Not a cleared medical device" in manifest.disclaimer
    assert card.release.stage.value == "demonstration"
    assert "10.17632/rscbjbr9sj.2" in card.bibliography
    assert "CC BY 4.0" in card.bibliography


def test_it_is_small() -> None:
    assert (FOLDER / "model.onnx").stat().st_size <= 2_000_000
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 4_000_000


def test_golden_inputs_are_drawn_chests(package: LoadedPackage) -> None:
    golden = load_golden(package).inputs[recipe.INPUT.name]

    np.testing.assert_allclose(golden, recipe.items(golden_pictures()), atol=0.02)


def test_the_page_and_its_pictures_are_those_of_the_evaluation(package: LoadedPackage) -> None:
    page = (DOCS / "paediatric_cxr.md").read_text("utf-8")

    assert with_figures(page, package.evaluation) == page
    for path in (DOCS / "paediatric_cxr").iterdir():
        assert path.read_bytes() == (FOLDER / "figures" / path.name).read_bytes()


def test_the_examples_are_drawn_anew_the_same() -> None:
    assert example_picture()[:8] == (FOLDER / "figures" / "examples.png").read_bytes()[:8]
    assert len(example_picture()) == pytest.approx(
        (FOLDER / "figures" / "examples.png").stat().st_size, rel=0.1
    )


def test_every_promised_study_is_in_the_package() -> None:
    folders = {path.name for path in (FOLDER / "golden" / "studies").iterdir()}

    assert folders == {promised.folder for promised in PROMISED_STUDIES}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (ChestName.ADULT, "age_out_of_range"),
        (ChestName.INFANT, "age_out_of_range"),
        (ChestName.AGE_MISSING, "age_missing"),
        (ChestName.VIEW_MISSING, "view_missing"),
        (ChestName.LATERAL, "view_not_covered"),
        (ChestName.RAW, "for_processing"),
    ],
)
def test_what_is_out_of_use_is_not_analysed_and_says_why(
    name: ChestName, reason: str, package: LoadedPackage, engine: Engine, tmp_path: Path
) -> None:
    study = make_chest_study(name, seed=31, positive=True, rows=128, columns=128)
    result = examine(write_chest_study(study, tmp_path), package.manifest, engine)

    assert isinstance(result, Refused)
    assert result.reason.value == reason


@pytest.mark.parametrize("name", [ChestName.DX, ChestName.CR, ChestName.INVERTED, ChestName.PAIR])
@pytest.mark.parametrize("kind", [None, OpacityKind.LOBAR, OpacityKind.INTERSTITIAL])
def test_drawn_chests_come_out_as_they_were_drawn(
    name: ChestName,
    kind: OpacityKind | None,
    package: LoadedPackage,
    engine: Engine,
    tmp_path: Path,
) -> None:
    study = make_chest_study(name, seed=41, opacity=kind, rows=256, columns=224)
    result = examine(write_chest_study(study, tmp_path), package.manifest, engine)

    assert isinstance(result, Scored)
    assert result.suspected is (kind is not None)


def test_the_interpretation_of_the_values_makes_no_difference(
    package: LoadedPackage, engine: Engine, tmp_path: Path
) -> None:
    chances = []
    for name in (ChestName.DX, ChestName.INVERTED):
        study = make_chest_study(name, seed=43, rows=256, columns=224)
        paths = write_chest_study(study, tmp_path / name.value)
        result = examine(paths, package.manifest, engine)
        assert isinstance(result, Scored)
        chances.append(result.leading.probability)

    assert chances[0] == pytest.approx(chances[1], abs=1e-3)
