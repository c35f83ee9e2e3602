from __future__ import annotations

import copy
import re
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
        "preprocess.1.interpolation",
        "findings.0.treshold",
        "findings.0.operating_point.note",
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
        ("findings.0.urgency", "whenever"),
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
        ("preprocess.1.rows", 1_000_000),
        ("preprocess.3.windows.0.high", 0),
        ("input.shape", [-1, 2, 0, 8]),
        ("input.shape", []),
        ("input.dtype", "float64"),
        ("findings.0.calibration.slope", 0.0),
        ("findings.0.calibration.slope", -1.0),
        ("findings.0.calibration.intercept", float("nan")),
        ("findings.0.operating_point.threshold", 0.7),
        ("findings.0.operating_point.threshold", 1.0),
        ("findings.0.aggregation.top", 0),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(
    tables: dict[str, Any], path: str, value: object
) -> None:
    with pytest.raises(ValidationError):
        ModelPackage.model_validate(changed(tables, path, value))


@pytest.mark.parametrize("shape", [[-1, 3, 8, 8], [-1, 2, 8, 16]], ids=str)
def test_preprocessing_that_does_not_end_in_the_input_is_refused(
    tables: dict[str, Any], shape: list[int]
) -> None:
    with pytest.raises(ValidationError, match="preprocessing ends in tensors of shape"):
        ModelPackage.model_validate(changed(tables, "input.shape", shape))


def test_neighbours_multiply_the_channels(tables: dict[str, Any]) -> None:
    tables["preprocess"].append({"step": "neighbours", "radius": 1})
    tables["input"]["shape"] = [-1, 6, 8, 8]
    assert ModelPackage.model_validate(tables).input.shape == (-1, 6, 8, 8)


def test_a_package_cannot_be_changed_after_it_was_read(tables: dict[str, Any]) -> None:
    package = ModelPackage.model_validate(tables)
    with pytest.raises(ValidationError):
        package.name = "other"


RESCALE = {"step": "rescale", "padding": 0}
COLLECT = {"step": "each_image"}
INVERT = {"step": "invert_monochrome1"}
CANONICAL = {"step": "canonical_orientation"}
LETTERBOX = {"step": "letterbox", "rows": 8, "columns": 16, "fill": 0}
WINDOWS = {"step": "window_channels", "windows": [{"low": 0, "high": 1}, {"low": 0, "high": 2}]}


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([COLLECT, WINDOWS], "'each_image' cannot stand at place 1"),
        ([RESCALE, WINDOWS], "exactly one step of: each_image, stack_slices, average_slabs"),
        ([RESCALE, COLLECT, COLLECT], "'each_image' cannot stand at place 3"),
        ([RESCALE, RESCALE, COLLECT], "'rescale' cannot stand at place 2"),
        ([RESCALE, COLLECT, LETTERBOX], "'letterbox' cannot stand at place 3"),
        ([RESCALE, WINDOWS, COLLECT], "'each_image' cannot stand at place 3"),
        ([RESCALE, LETTERBOX, INVERT, COLLECT], "invert_monochrome1 stands directly behind"),
        ([RESCALE, LETTERBOX, CANONICAL, COLLECT], "canonical_orientation stands directly behind"),
        ([RESCALE, COLLECT, WINDOWS, WINDOWS], "window_channels needs a single channel"),
        (
            [RESCALE, COLLECT, {"step": "standardise", "mean": [0, 0], "deviation": [1, 1]}],
            "2 numbers for 1 channels",
        ),
        (
            [RESCALE, {**LETTERBOX, "step": "crop_or_pad", "slices": 3}, COLLECT],
            "'slices' of crop_or_pad needs a stack",
        ),
        ([RESCALE, COLLECT, {"step": "resample_stack"}], "either 'spacing_mm' or 'shape'"),
    ],
)
def test_steps_without_meaning_are_refused(
    tables: dict[str, Any], steps: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        ModelPackage.model_validate(changed(tables, "preprocess", steps))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"findings.0.tensor": "nothing"}, "no output is named 'nothing'"),
        ({"findings.0.element": 3}, "has no element 3"),
        ({"findings.0.scale": "softmax"}, "softmax needs 'element'"),
        ({"outputs.0.shape": [-1, 7]}, "say which one by 'element'"),
        ({"outputs.0.shape": [1]}, "the first axis is that of the items"),
        ({"outputs.0.name": "slabs"}, "two tensors have the same name"),
        ({"input.layout": "NCDHW"}, "layout NCDHW has 5 axes"),
        ({"selection.series": "all"}, "needs the step each_image"),
    ],
)
def test_findings_outputs_and_input_agree(
    tables: dict[str, Any], changes: dict[str, Any], complaint: str
) -> None:
    for path, value in changes.items():
        tables = changed(tables, path, value)
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        ModelPackage.model_validate(tables)


def test_two_findings_have_two_keys(tables: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="two findings have the same key"):
        ModelPackage.model_validate(changed(tables, "findings", tables["findings"] * 2))


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("NHWC", [-1, 8, 8, 2]),
        ("NCDHW", [1, 2, -1, 8, 8]),
        ("NDHWC", [1, -1, 8, 8, 2]),
    ],
)
def test_the_input_may_have_any_layout(
    tables: dict[str, Any], layout: str, shape: list[int]
) -> None:
    tables = changed(changed(tables, "input.layout", layout), "input.shape", shape)
    tables = changed(tables, "outputs.0.shape", shape[:1])
    assert ModelPackage.model_validate(tables).input.layout.value == layout


def test_a_package_is_as_urgent_as_its_most_urgent_finding(tables: dict[str, Any]) -> None:
    first = tables["findings"][0]
    tables["findings"] = [
        {**first, "key": "one", "urgency": "routine"},
        {**first, "key": "two", "urgency": "urgent"},
    ]
    package = ModelPackage.model_validate(tables)
    assert package.urgency.value == "urgent"
    assert package.finding("two").urgency.value == "urgent"
    with pytest.raises(KeyError):
        package.finding("three")
