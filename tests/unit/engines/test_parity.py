from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from engines.backends import open_engine
from engines.contract import Backend, EngineOptions
from engines.errors import EngineOutputError, ModelFileError, PackageIntegrityError, ParityError
from engines.loading import LoadedPackage, load_package
from engines.package import Parity
from engines.parity import check_parity, compare

OPTIONS = EngineOptions()


@pytest.fixture
def package(builder: Any) -> LoadedPackage:
    return load_package(builder.write())


def test_a_good_package_holds_on_this_device(package: LoadedPackage) -> None:
    with open_engine(Backend.ONNXRUNTIME, package.model, OPTIONS) as engine:
        report = check_parity(engine, package)
    assert report.holds
    assert report.elements == 6
    assert report.max_absolute < 1e-5


def test_an_engine_that_deviates_is_refused_with_its_deviation(builder: Any) -> None:
    builder.golden_outputs = builder.golden_outputs + np.float32(0.25)
    package = load_package(builder.write())
    with (
        open_engine(Backend.ONNXRUNTIME, package.model, OPTIONS) as engine,
        pytest.raises(ParityError, match=r"largest deviation 0\.25, 6 of 6 out of tolerance"),
    ):
        check_parity(engine, package)


def test_golden_outputs_of_another_length_are_refused(builder: Any) -> None:
    builder.golden_outputs = builder.golden_outputs[:4]
    package = load_package(builder.write())
    with (
        open_engine(Backend.ONNXRUNTIME, package.model, OPTIONS) as engine,
        pytest.raises(EngineOutputError, match=r"shape \(6,\), the reference has \(4,\)"),
    ):
        check_parity(engine, package)


def test_golden_files_changed_after_the_check_are_not_believed(package: LoadedPackage) -> None:
    package.golden_outputs.path.write_bytes(package.golden_inputs.path.read_bytes())
    with (
        open_engine(Backend.ONNXRUNTIME, package.model, OPTIONS) as engine,
        pytest.raises(PackageIntegrityError),
    ):
        check_parity(engine, package)


@pytest.mark.parametrize(("old", "new"), [("logits", "scores"), ("slabs", "voxels")])
def test_tensors_of_another_name_are_the_packages_fault(builder: Any, old: str, new: str) -> None:
    builder.manifest = builder.manifest.replace(f'name = "{old}"', f'name = "{new}"')
    package = load_package(builder.write())
    with (
        open_engine(Backend.ONNXRUNTIME, package.model, OPTIONS) as engine,
        pytest.raises(ModelFileError, match=f"package.toml says {new}"),
    ):
        check_parity(engine, package)


def test_a_model_with_a_second_input_is_the_packages_fault(builder: Any, make_model: Any) -> None:
    model: onnx.ModelProto = make_model()
    model.graph.input.append(helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, ("n",)))
    builder.model = model.SerializeToString()
    package = load_package(builder.write())
    with (
        open_engine(Backend.ONNXRUNTIME, package.model, OPTIONS) as engine,
        pytest.raises(ModelFileError, match="extra float32"),
    ):
        check_parity(engine, package)


def test_a_flip_within_tolerance_still_breaks_parity(package: LoadedPackage) -> None:
    report = compare(
        np.array([-0.0004, 3.0], dtype=np.float32),
        np.array([0.0004, 3.0], dtype=np.float32),
        output=package.manifest.output,
        tolerance=Parity(absolute=1e-3, relative=0.0),
    )
    assert (report.outside_tolerance, report.flips, report.holds) == (0, 1, False)


def test_a_deviation_without_a_flip_still_breaks_parity(package: LoadedPackage) -> None:
    report = compare(
        np.array([2.0, 3.0], dtype=np.float32),
        np.array([2.0, 3.5], dtype=np.float32),
        output=package.manifest.output,
        tolerance=Parity(absolute=1e-3, relative=1e-3),
    )
    assert (report.outside_tolerance, report.flips, report.holds) == (1, 0, False)
    assert report.max_absolute == 0.5


def test_the_relative_tolerance_grows_with_the_reference(package: LoadedPackage) -> None:
    report = compare(
        np.array([1000.0, 1.0], dtype=np.float32),
        np.array([1000.5, 1.0005], dtype=np.float32),
        output=package.manifest.output,
        tolerance=Parity(absolute=1e-6, relative=1e-3),
    )
    assert report.holds


def test_a_value_that_is_not_finite_cannot_be_compared(package: LoadedPackage) -> None:
    for reference, candidate in ((1.0, np.nan), (np.inf, np.inf)):
        with pytest.raises(EngineOutputError):
            compare(
                np.array([reference], dtype=np.float32),
                np.array([candidate], dtype=np.float32),
                output=package.manifest.output,
                tolerance=package.manifest.parity,
            )
