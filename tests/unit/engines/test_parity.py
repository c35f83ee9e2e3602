from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from engines.backends import open_engine
from engines.contract import Backend, EngineOptions, Precision
from engines.errors import EngineOutputError, ModelFileError, PackageIntegrityError, ParityError
from engines.loading import LoadedPackage, load_package
from engines.package import Parity
from engines.parity import ParityReport, check_parity, compare, cosine_of, tolerance_of

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
        pytest.raises(EngineOutputError, match=r"shape \(6,\), the reference \(4,\)"),
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
    for key in ("name", "tensor"):
        builder.manifest = builder.manifest.replace(f'{key} = "{old}"', f'{key} = "{new}"')
    package = load_package(builder.write())
    with (
        open_engine(Backend.ONNXRUNTIME, package.model, OPTIONS) as engine,
        pytest.raises(ModelFileError, match=rf"package\.toml says \[{new}"),
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


def compared(
    package: LoadedPackage,
    reference: list[float],
    candidate: list[float],
    *,
    absolute: float = 1e-3,
    relative: float = 1e-3,
) -> ParityReport:
    manifest = package.manifest.model_copy(
        update={"parity": Parity(absolute=absolute, relative=relative)}
    )
    return compare(
        {"logits": np.array(reference, dtype=np.float32)},
        {"logits": np.array(candidate, dtype=np.float32)},
        manifest,
    )


def test_a_flip_within_tolerance_still_breaks_parity(package: LoadedPackage) -> None:
    report = compared(package, [-0.0004, 3.0], [0.0004, 3.0], relative=0.0)
    assert (report.outside_tolerance, report.flips, report.holds) == (0, 1, False)


def test_a_deviation_without_a_flip_still_breaks_parity(package: LoadedPackage) -> None:
    report = compared(package, [2.0, 3.0], [2.0, 3.5])
    assert (report.outside_tolerance, report.flips, report.holds) == (1, 0, False)
    assert report.max_absolute == 0.5


def test_the_relative_tolerance_grows_with_the_reference(package: LoadedPackage) -> None:
    assert compared(package, [1000.0, 1.0], [1000.5, 1.0005], absolute=1e-6).holds


def test_a_value_that_is_not_finite_cannot_be_compared(package: LoadedPackage) -> None:
    for reference, candidate in ((1.0, np.nan), (np.inf, np.inf)):
        with pytest.raises(EngineOutputError):
            compared(package, [reference], [candidate])


def test_a_deviation_in_an_output_that_no_finding_uses_breaks_parity(
    package: LoadedPackage,
) -> None:
    logits = np.array([-1.0, 1.0], dtype=np.float32)
    heat = np.zeros((2, 4), dtype=np.float32)
    report = compare(
        {"logits": logits, "heat": heat}, {"logits": logits, "heat": heat + 1}, package.manifest
    )
    assert (report.outside_tolerance, report.flips, report.elements) == (8, 0, 10)


def test_a_flip_counts_for_each_finding(package: LoadedPackage) -> None:
    first = package.manifest.findings[0]
    findings = (first, first.model_copy(update={"key": "again"}))
    manifest = package.manifest.model_copy(update={"findings": findings})
    report = compare(
        {"logits": np.array([-1e-4, 1.0], dtype=np.float32)},
        {"logits": np.array([1e-4, 1.0], dtype=np.float32)},
        manifest,
    )
    assert report.flips == 2


@pytest.mark.parametrize("batch", [1, 4, 6, 32])
def test_a_model_of_a_fixed_batch_holds_on_any_number_of_golden_items(
    builder: Any, make_model: Any, batch: int
) -> None:
    model: onnx.ModelProto = make_model(input_shape=(batch, 2, 8, 8))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = batch
    builder.model = model.SerializeToString()
    builder.manifest = builder.manifest.replace(
        "shape = [-1, 2, 8, 8]", f"shape = [{batch}, 2, 8, 8]"
    ).replace("shape = [-1]", f"shape = [{batch}]")
    package = load_package(builder.write())
    with open_engine(Backend.ONNXRUNTIME, package.model, OPTIONS) as engine:
        report = check_parity(engine, package)
    assert (report.holds, report.elements) == (True, 6)


@pytest.mark.parametrize(
    ("first", "second", "cosine"),
    [
        ([1.0, 2.0], [2.0, 4.0], 1.0),
        ([1.0, 0.0], [0.0, 1.0], 0.0),
        ([1.0, 2.0], [-1.0, -2.0], -1.0),
        ([0.0, 0.0], [0.0, 0.0], 1.0),
        ([0.0, 0.0], [1.0, 0.0], 0.0),
        ([3e38, 3e38], [3e38, 3e38], 1.0),
        ([1e-38, 1e-38], [1e-38, 0.0], 0.5**0.5),
    ],
)
def test_the_cosine_is_that_of_the_outputs_as_vectors(
    first: list[float], second: list[float], cosine: float
) -> None:
    arrays = np.array(first, np.float32), np.array(second, np.float32)
    assert cosine_of(*arrays) == pytest.approx(cosine)


def test_the_report_has_the_cosine_of_the_output_that_turned_most(package: LoadedPackage) -> None:
    logits = np.array([-1.0, 1.0], dtype=np.float32)
    heat = np.array([[1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    report = compare(
        {"logits": logits, "heat": heat}, {"logits": logits, "heat": heat.T}, package.manifest
    )
    assert report.cosine == pytest.approx(1.0)
    turned = compare(
        {"logits": logits, "heat": heat}, {"logits": logits, "heat": heat[::-1]}, package.manifest
    )
    assert turned.cosine == pytest.approx(0.0)


def test_half_precision_may_deviate_further_and_never_less_far(package: LoadedPackage) -> None:
    for allowed, half in ((Parity(), 0.01), (Parity(absolute=0.3), 0.3)):
        manifest = package.manifest.model_copy(update={"parity": allowed})
        assert tolerance_of(manifest, Precision.FP32).absolute == allowed.absolute
        assert tolerance_of(manifest, Precision.FP16).absolute == half
    logits = np.array([-1.0, 1.0], dtype=np.float32)
    outputs = {"logits": logits}, {"logits": logits + np.float32(0.015)}
    assert not compare(*outputs, package.manifest).holds
    assert compare(*outputs, package.manifest, Precision.FP16).holds
