from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.backends import open_engine
from engines.calibration import suspected_items
from engines.contract import Backend, Engine, EngineOptions
from engines.golden_studies import load_golden_studies
from engines.loading import LoadedPackage, load_package
from engines.package import ModelPackage, OperatingPoint
from tools.head_ct import recipe
from tools.head_ct.golden import (
    CARRIED,
    DRAWN,
    UnexpectedOutcomeError,
    check_promises,
    write_golden_studies,
    write_golden_tensors,
)
from tools.phantoms.spec import BleedKind
from tools.phantoms.variants import REFUSALS


@pytest.fixture(scope="module")
def package(shipped: Path) -> LoadedPackage:
    return load_package(shipped)


@pytest.fixture(scope="module")
def engine(package: LoadedPackage) -> Iterator[Engine]:
    with open_engine(Backend.ONNXRUNTIME, package.model, EngineOptions()) as engine:
        yield engine


def deciding_at(package: LoadedPackage, threshold: float) -> ModelPackage:
    """The shipped rules with another operating point."""
    calibration = package.manifest.findings[0].calibration
    allowed = (min(threshold, 0.1), max(threshold, 0.9))
    return recipe.manifest(calibration, OperatingPoint(threshold=threshold, allowed=allowed))


def test_every_kind_of_study_is_promised() -> None:
    assert {promise.phantom for promise in DRAWN} >= set(REFUSALS)
    assert {promise.bleed for promise in DRAWN} >= set(BleedKind)


@pytest.mark.parametrize("threshold", [1e-6, 0.999_99])
def test_a_model_that_decides_otherwise_is_no_package(
    threshold: float, package: LoadedPackage, engine: Engine
) -> None:
    with pytest.raises(UnexpectedOutcomeError, match="wanted"):
        check_promises(deciding_at(package, threshold), engine, CARRIED)


def test_a_study_that_comes_out_otherwise_is_not_carried(
    package: LoadedPackage, engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(UnexpectedOutcomeError, match="wanted"):
        write_golden_studies(tmp_path, deciding_at(package, 0.999_99), engine)


def test_golden_files_are_written_as_they_are_shipped(
    package: LoadedPackage, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "golden").mkdir()
    write_golden_studies(tmp_path, package.manifest, engine)
    write_golden_tensors(tmp_path, package.manifest, engine)
    shipped = package.folder / "golden"
    with np.load(tmp_path / "golden" / "outputs.npz") as outputs:
        suspected = suspected_items({"logit": outputs["logit"]}, package.manifest.findings[0])

    assert (tmp_path / "golden" / "studies.toml").read_text() == (
        shipped / "studies.toml"
    ).read_text()
    assert {each.study.folder for each in load_golden_studies(package)} == {
        path.name for path in (tmp_path / "golden" / "studies").iterdir()
    }
    assert set(suspected.tolist()) == {True, False}
