from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from engines.package import ModelPackage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def tables(builder: Any) -> dict[str, Any]:
    return tomllib.loads(builder.manifest)


def changed(tables: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    result = copy.deepcopy(tables)
    place: Any = result
    *folders, last = path.split(".")
    for part in folders:
        place = place[int(part)] if part.isdigit() else place[part]
    place[int(last) if last.isdigit() else last] = value
    return result


def test_the_smallest_package_is_accepted_with_its_defaults(tables: dict[str, Any]) -> None:
    package = ModelPackage.model_validate(tables)
    assert package.parity.absolute == 1e-3
    assert package.selection.min_images == 1
    assert package.gate.lossy == "forbidden"


@pytest.mark.parametrize(
    "path",
    [
        "surprise",
        "gate.slice_thicknes_mm",
        "selection.modality",
        "preprocess.0.interpolation",
        "output.treshold",
        "output.operating_point.note",
    ],
)
def test_an_unknown_key_is_refused_wherever_it_stands(tables: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ModelPackage.model_validate(changed(tables, path, 1))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "Bright Phantom"),
        ("version", "1.2"),
        ("title", "ICH\\SUSPECTED"),
        ("title", "two\nlines"),
        ("title", "x" * 39),
        ("urgency", "whenever"),
        ("procedure.value", "x" * 17),
        ("selection.modalities", []),
        ("selection.modalities", ["ct"]),
        ("selection.sop_class_uids", ["CT Image Storage"]),
        ("selection.soft_kernels", ["("]),
        ("selection.prefer", []),
        ("gate.slice_thickness_mm", [5.0, 1.0]),
        ("gate.slice_thickness_mm", [1.0, float("nan")]),
        ("gate.coverage_mm", [1.0, float("inf")]),
        ("gate.age_years", [50, 18]),
        ("gate.sexes", ["male"]),
        ("preprocess", []),
        ("preprocess.0.step", "run_python"),
        ("preprocess.0.rows", 1_000_000),
        ("preprocess.2.windows.0.high", 0),
        ("input.shape", [-1, 2, 0, 8]),
        ("input.shape", []),
        ("input.dtype", "float64"),
        ("output.calibration.slope", 0.0),
        ("output.calibration.slope", -1.0),
        ("output.calibration.intercept", float("nan")),
        ("output.operating_point.threshold", 0.7),
        ("output.operating_point.threshold", 1.0),
        ("output.aggregation.top", 0),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(
    tables: dict[str, Any], path: str, value: object
) -> None:
    with pytest.raises(ValidationError):
        ModelPackage.model_validate(changed(tables, path, value))


@pytest.mark.parametrize(
    "shape", [[-1, 3, 8, 8], [-1, 2, 8, 16], [-1, 2, 8], [-1, 2, 8, 8, 1]], ids=str
)
def test_preprocessing_that_does_not_end_in_the_input_is_refused(
    tables: dict[str, Any], shape: list[int]
) -> None:
    with pytest.raises(ValidationError, match="preprocessing ends in tensors of shape"):
        ModelPackage.model_validate(changed(tables, "input.shape", shape))


def test_neighbours_multiply_the_channels(tables: dict[str, Any]) -> None:
    tables["preprocess"].append({"step": "neighbour_slabs", "radius": 1})
    tables["input"]["shape"] = [-1, 6, 8, 8]
    assert ModelPackage.model_validate(tables).input.shape == (-1, 6, 8, 8)


def test_steps_out_of_order_or_twice_are_refused(tables: dict[str, Any]) -> None:
    steps = tables["preprocess"]
    for wrong in ([steps[2], steps[0], steps[1]], [steps[0], *steps]):
        with pytest.raises(ValidationError, match="at most once each, in the order"):
            ModelPackage.model_validate(changed(tables, "preprocess", wrong))


def test_a_package_cannot_be_changed_after_it_was_read(tables: dict[str, Any]) -> None:
    package = ModelPackage.model_validate(tables)
    with pytest.raises(ValidationError):
        package.name = "other"
