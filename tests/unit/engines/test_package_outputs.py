"""Several outputs, elements of them, volumes: what package.toml may say, and how it is verified."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from pydantic import ValidationError

from engines.contract import Backend, EngineOptions
from engines.errors import GoldenFileError, ParityError
from engines.package import ModelPackage, Urgency
from engines.verifying import verify_package

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLASSES = """
[[outputs]]
name = "classes"
dtype = "float32"
shape = [-1, 3]

[[findings]]
key = "mass"
code = { value = "4147007", scheme = "SCT", meaning = "Mass" }
urgency = "urgent"
tensor = "classes"
element = 2
scale = "softmax"
calibration = { slope = 1.0, intercept = 0.0 }
operating_point = { threshold = 0.5, allowed = [0.4, 0.6] }
"""
LEVELS = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], dtype=np.float32)


@pytest.fixture
def tables(builder: Any) -> dict[str, Any]:
    return tomllib.loads(builder.manifest + CLASSES)


def test_findings_may_rest_on_several_outputs(tables: dict[str, Any]) -> None:
    package = ModelPackage.model_validate(tables)
    assert [finding.tensor for finding in package.findings] == ["logits", "classes"]
    assert package.urgency is Urgency.CRITICAL
    assert package.finding("mass").element == 2
    with pytest.raises(KeyError):
        package.finding("other")


@pytest.mark.parametrize(
    ("table", "key", "value", "words"),
    [
        ("findings", "tensor", "nowhere", "no output is named 'nowhere'"),
        ("findings", "element", 3, "no element 3"),
        ("findings", "element", None, "softmax needs 'element'"),
        ("findings", "key", "bright", "two findings have the same key"),
        ("findings", "scale", "percent", "scale"),
        ("outputs", "name", "logits", "two tensors have the same name"),
        ("outputs", "name", "slabs", "two tensors have the same name"),
        ("outputs", "shape", [-1, -1], "no element 2"),
        ("outputs", "shape", [4, 3], "first axis is that of the items"),
    ],
)
def test_findings_that_do_not_rest_on_the_outputs_are_refused(
    tables: dict[str, Any], table: str, key: str, value: object, words: str
) -> None:
    tables[table][1][key] = value
    with pytest.raises(ValidationError, match=words):
        ModelPackage.model_validate(tables)


def test_several_numbers_for_each_item_need_an_element(tables: dict[str, Any]) -> None:
    tables["findings"][1] |= {"element": None, "scale": "logit"}
    with pytest.raises(ValidationError, match="several numbers for each item"):
        ModelPackage.model_validate(tables)


@pytest.mark.parametrize(
    ("layout", "shape", "fits"),
    [
        ("NCDHW", [1, 1, 4, 8, 8], True),
        ("NDHWC", [1, 4, 8, 8, 1], True),
        ("NCDHW", [1, 4, 1, 8, 8], False),
        ("NCDHW", [2, 1, 4, 8, 8], False),
        ("NCHW", [1, 1, 4, 8, 8], False),
        ("NHWC", [-1, 8, 8, 1], True),
        ("NHWC", [-1, 1, 8, 8], False),
    ],
)
def test_the_layout_says_what_the_axes_are(
    builder: Any, layout: str, shape: list[int], fits: bool
) -> None:
    tables = tomllib.loads(builder.manifest)
    tables["preprocess"] = [
        {"step": "rescale", "padding": 0},
        {"step": "stack_slices"},
        {"step": "resample_stack", "shape": [4, 8, 8]},
    ]
    if not layout.count("D"):
        tables["preprocess"][1:] = [
            {"step": "resize", "rows": 8, "columns": 8},
            {"step": "each_image"},
        ]
    tables["input"] |= {"layout": layout, "shape": shape}
    tables["outputs"][0]["shape"] = shape[:1]
    if fits:
        assert ModelPackage.model_validate(tables).input.layout.is_volume == ("D" in layout)
    else:
        with pytest.raises(ValidationError):
            ModelPackage.model_validate(tables)


def classifier() -> onnx.ModelProto:
    """The bright model's logit, and three classes of which the last grows with it."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["slabs"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "half"], ["centred"]),
            helper.make_node("Mul", ["centred", "eight"], ["logits"]),
            helper.make_node("Unsqueeze", ["logits", "one"], ["column"]),
            helper.make_node("Mul", ["column", "weights"], ["classes"]),
        ],
        "classes",
        [helper.make_tensor_value_info("slabs", TensorProto.FLOAT, ("n", 2, 8, 8))],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n",)),
            helper.make_tensor_value_info("classes", TensorProto.FLOAT, ("n", 3)),
        ],
        [
            helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("eight", TensorProto.FLOAT, [], [8.0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("weights", TensorProto.FLOAT, [3], [-1.0, 0.0, 2.0]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(builder: Any, make_npz: Any, classes: Any) -> Path:
    builder.manifest += CLASSES
    builder.model = classifier().SerializeToString()
    builder.evaluation = {"thresholds": {"bright": 0.5, "mass": 0.5}}
    logits = (LEVELS - np.float32(0.5)) * np.float32(8)
    content = make_npz({"logits": logits, "classes": classes.astype(np.float32)})
    folder: Path = builder.replace("golden/outputs.npz", content)
    return folder


def golden_classes() -> Any:
    logits = (LEVELS - np.float32(0.5)) * np.float32(8)
    return logits[:, None] * np.array([-1, 0, 2], dtype=np.float32)


def test_a_package_of_several_outputs_is_verified_with_all_of_them(
    builder: Any, make_npz: Any
) -> None:
    folder = written(builder, make_npz, golden_classes())
    report = verify_package(folder, Backend.ONNXRUNTIME, EngineOptions())
    assert (report.holds, report.elements) == (True, 24)
    assert json.loads((folder / "evaluation.json").read_text())["thresholds"]["mass"] == 0.5


def test_a_deviation_of_any_output_refuses_the_package(builder: Any, make_npz: Any) -> None:
    folder = written(builder, make_npz, golden_classes() + np.array([0.01, 0, 0]))
    with pytest.raises(ParityError, match="6 of 24 out of tolerance"):
        verify_package(folder, Backend.ONNXRUNTIME, EngineOptions())


def test_golden_outputs_must_lie_on_both_sides_for_every_finding(
    builder: Any, make_npz: Any
) -> None:
    folder = written(builder, make_npz, golden_classes() - np.array([0, 0, 99]))
    with pytest.raises(GoldenFileError, match="operating point of 'mass'"):
        verify_package(folder, Backend.ONNXRUNTIME, EngineOptions())


def test_a_model_of_probabilities_whose_golden_outputs_are_none_is_refused(builder: Any) -> None:
    builder.manifest = builder.manifest.replace(
        'tensor = "logits"', 'tensor = "logits"\nscale = "probability"'
    )
    with pytest.raises(GoldenFileError, match="a probability is not between 0 and 1"):
        verify_package(builder.write(), Backend.ONNXRUNTIME, EngineOptions())
