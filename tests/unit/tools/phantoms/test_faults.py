"""Every phantom that a gate must refuse, before the gate of the package that we ship."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from edge_runtime.model.finding import Refused
from edge_runtime.pipeline.trial import examine
from engines.backends import open_engine
from engines.contract import Backend, Engine, EngineOptions
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages
from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.variants import (
    REFUSALS,
    Expectation,
    PhantomName,
    PhantomStudy,
    make_study,
    write_study,
)

SLICES = 14


def study_of(name: PhantomName, **changes: int) -> PhantomStudy:
    return make_study(name, seed=changes.get("seed", 3), slices=SLICES, matrix=128)


@pytest.fixture(scope="module")
def package() -> LoadedPackage:
    return load_package(shipped_packages()["head_ct_phantom"])


@pytest.fixture(scope="module")
def engine(package: LoadedPackage) -> Iterator[Engine]:
    with open_engine(Backend.ONNXRUNTIME, package.model, EngineOptions()) as engine:
        yield engine


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, of attributes that lack a value
def test_the_package_refuses_it_and_says_why(
    name: PhantomName, package: LoadedPackage, engine: Engine, tmp_path: Path
) -> None:
    study = study_of(name)
    result = examine(write_study(study, tmp_path), package.manifest, engine)

    assert study.expectation is Expectation.NOT_ANALYSED
    assert isinstance(result, Refused)
    assert result.reason is REFUSALS[name]


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5, 6])
def test_a_fault_does_not_hang_on_the_scanner(
    seed: int, package: LoadedPackage, engine: Engine, tmp_path: Path
) -> None:
    study = study_of(PhantomName.UNEVEN_GAPS, seed=seed)
    result = examine(write_study(study, tmp_path), package.manifest, engine)

    assert isinstance(result, Refused)
    assert result.reason is REFUSALS[PhantomName.UNEVEN_GAPS]


def test_a_lossy_study_says_that_it_is(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_study(study_of(PhantomName.LOSSY), tmp_path)[0])

    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod == "ISO_15444_1"
    assert len(dataset.PixelData) < 128 * 128 * 2 / 10


def test_a_multi_frame_object_holds_all_slices(tmp_path: Path) -> None:
    paths = write_study(study_of(PhantomName.MULTI_FRAME), tmp_path)
    dataset = pydicom.dcmread(paths[0])

    assert len(paths) == 1
    assert dataset.NumberOfFrames == SLICES
    assert dataset.pixel_array.shape == (SLICES, 128, 128)


def test_an_oblique_stack_runs_along_its_own_normal() -> None:
    first, second = list(study_of(PhantomName.OBLIQUE).datasets())[:2]
    step = [
        float(b) - float(a)
        for a, b in zip(first.ImagePositionPatient, second.ImagePositionPatient, strict=True)
    ]
    row, column = first.ImageOrientationPatient[:3], first.ImageOrientationPatient[3:]

    assert sum(float(s) * float(r) for s, r in zip(step, row, strict=True)) == pytest.approx(0)
    assert sum(float(s) * float(c) for s, c in zip(step, column, strict=True)) == pytest.approx(
        0, abs=1e-3
    )


def test_a_lossy_study_ignores_the_lossless_syntax_asked_for() -> None:
    study = make_study(PhantomName.LOSSY, seed=3, slices=1, matrix=64, syntax=PhantomSyntax.JPEG_LS)
    (dataset,) = study.datasets()

    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.JPEG2000
