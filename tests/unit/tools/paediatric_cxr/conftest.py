"""Drawn chests under the public data set's names, and networks that look somewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tools.paediatric_cxr import recipe
from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import OpacityKind, draw_chest_spec

SIDE = 112
NORMALS, ILL = 42, 60


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn chests; every third patient has two."""
    root = tmp_path_factory.mktemp("data")
    for number in range(NORMALS):
        _write(root / "train" / "NORMAL" / f"IM-{number:04d}-0001.jpeg", number, None)
    for number in range(ILL):
        kind = tuple(OpacityKind)[number % 3]
        cause = "virus" if kind is OpacityKind.INTERSTITIAL else "bacteria"
        folder = root / "train" / "PNEUMONIA"
        _write(folder / f"person{number}_{cause}_{number}.jpeg", 500 + number, kind)
        if number % 3 == 0:
            _write(folder / f"person{number}_{cause}_{900 + number}.jpeg", 700 + number, kind)
    return root


def _write(path: Path, seed: int, kind: OpacityKind | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_chest(draw_chest_spec(seed, opacity=kind), rows=SIDE, columns=SIDE).density
    Image.fromarray(np.rint(drawn * 255).astype(np.uint8)).convert("RGB").save(path, quality=90)


@pytest.fixture
def weighing_model(tmp_path: Path) -> Callable[[np.ndarray], Path]:  # type: ignore[type-arg]
    """Makes an ONNX file whose logit is the sum of the input times given weights."""

    def make(weights: np.ndarray) -> Path:  # type: ignore[type-arg]
        nodes = [
            helper.make_node("Mul", ["images", "weights"], ["weighed"]),
            helper.make_node("ReduceSum", ["weighed", "axes"], ["logit"], keepdims=0),
        ]
        graph = helper.make_graph(
            nodes,
            "weighing",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, recipe_shape())],
            [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["images"])],
            [
                numpy_helper.from_array(weights.astype(np.float32)[None, None], "weights"),
                numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
            ],
        )
        path = tmp_path / "weighing.onnx"
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
        return path

    return make


def recipe_shape() -> list[str | int]:
    """The network's input as ONNX declares it."""
    return ["images", *recipe.INPUT.shape[1:]]
