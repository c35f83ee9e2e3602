"""The package as it lies in the tree: in order, small, and true to its promises."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.backends import open_engine
from engines.contract import Backend, Engine, EngineOptions
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages
from engines.verifying import verify_package
from tools.head_ct import recipe
from tools.head_ct.page import with_figures
from tools.head_ct.through import examine
from tools.phantoms.spec import BleedKind
from tools.phantoms.variants import PhantomName, make_study, write_study

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = shipped_packages()["head_ct_phantom"]
PAGE = Path(__file__).parents[4] / "docs" / "models" / "head-ct-phantom.md"
GOLDEN_STUDIES = tomllib.loads((FOLDER / "golden" / "studies.toml").read_text("utf-8"))["study"]


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
    output = package.manifest.output

    assert package.manifest == recipe.manifest(output.calibration, output.operating_point)


def test_it_says_what_it_is(package: LoadedPackage) -> None:
    manifest, card = package.manifest, package.card

    assert manifest.demonstration
    assert "no patient" in manifest.disclaimer
    assert "not a cleared medical device" in manifest.disclaimer
    assert card.release.stage.value == "demonstration"
    assert any("no patient" in text for text in card.disclaimers)


def test_it_is_small() -> None:
    assert (FOLDER / "model.onnx").stat().st_size <= 2_000_000
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


def test_the_page_holds_the_figures_of_the_evaluation(package: LoadedPackage) -> None:
    page = PAGE.read_text("utf-8")

    assert with_figures(page, package.evaluation) == page


def test_a_page_without_its_marks_is_refused(package: LoadedPackage) -> None:
    with pytest.raises(ValueError, match="must hold the lines"):
        with_figures("# A page\n", package.evaluation)


@pytest.mark.parametrize(
    "golden", GOLDEN_STUDIES, ids=lambda golden: f"{golden['phantom']}-{golden['seed']}"
)
def test_golden_studies_come_out_as_promised(
    golden: dict[str, Any], package: LoadedPackage, engine: Engine, tmp_path: Path
) -> None:
    bleed = golden.get("bleed")
    study = make_study(
        PhantomName(golden["phantom"]),
        seed=golden["seed"],
        bleed=None if bleed is None else BleedKind(bleed),
        slices=golden["slices"],
    )
    verdict = examine(write_study(study, tmp_path), package.manifest, engine)

    assert verdict.outcome.value == golden["outcome"]
    assert verdict.outcome is study.expectation
    assert (verdict.reason.value if verdict.reason else None) == golden.get("reason")
