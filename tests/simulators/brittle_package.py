"""A model package that loads and proves itself, and whose engine breaks on a bright study."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from onnx import TensorProto, helper

from engines.loading import EVALUATION_FILE, MODEL_FILE, LoadedPackage, load_package
from engines.writing import write_checksums
from simulators.model_package import write_model_package


def write_brittle_package(folder: Path) -> LoadedPackage:
    """Write and load it; its golden inputs are all darker than what breaks it."""
    write_model_package(folder, name="brittle")
    model = _model()
    (folder / MODEL_FILE).write_bytes(model)
    evaluation = json.loads((folder / EVALUATION_FILE).read_text())
    evaluation["model_sha256"] = hashlib.sha256(model).hexdigest()
    (folder / EVALUATION_FILE).write_text(json.dumps(evaluation))
    write_checksums(folder)
    return load_package(folder)


def _model() -> bytes:
    """As the bright model, plus a look into a table that ends before a bright mean."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["slices"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "half"], ["centred"]),
            helper.make_node("Mul", ["centred", "eight"], ["bright_logits"]),
            helper.make_node("Mul", ["mean", "more"], ["scaled"]),
            helper.make_node("Cast", ["scaled"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "row"], ["found"]),
            helper.make_node("Add", ["bright_logits", "found"], ["logits"]),
        ],
        "brittle",
        [helper.make_tensor_value_info("slices", TensorProto.FLOAT, ("n", 1, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n",))],
        [
            helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("eight", TensorProto.FLOAT, [], [8.0]),
            helper.make_tensor("more", TensorProto.FLOAT, [], [1.05]),
            helper.make_tensor("table", TensorProto.FLOAT, [1], [0.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
