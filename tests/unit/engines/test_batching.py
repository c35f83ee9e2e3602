"""A model runs on as many items as there are, whatever batch it was exported for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engines.backends import open_engine
from engines.batching import MOST_ITEMS, run_batches
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions
from engines.package import InputRule, Layout

MakeFile = Callable[[onnx.ModelProto], VerifiedFile]


def model_of(shape: tuple[int | str, ...]) -> onnx.ModelProto:
    """The sum and the mean of each item, and how many items came together."""
    axes = list(range(1, len(shape)))
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes, keepdims=0),
            helper.make_node("ReduceMax", ["x"], ["max"], axes=axes, keepdims=0),
            helper.make_node("Shape", ["mean"], ["items"]),
            helper.make_node("Cast", ["items"], ["together"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "together"], ["batch"]),
        ],
        "batches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape[:1])
            for name in ("mean", "max", "batch")
        ],
        [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(
    model_file: MakeFile, shape: tuple[int | str, ...], items: NDArray[np.float32], layout: Layout
) -> dict[str, NDArray[np.float32]]:
    rule = InputRule(
        name="x",
        dtype="float32",
        shape=tuple(size if isinstance(size, int) else -1 for size in shape),
        layout=layout,
    )
    file = model_file(model_of(shape))
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
        return run_batches(engine, rule, items)


@pytest.mark.parametrize("batch", ["n", 1, 4, 7, 16])
@pytest.mark.parametrize("count", [1, 7, MOST_ITEMS + 3])
def test_each_item_has_its_own_outputs_whatever_the_batch(
    model_file: MakeFile, batch: int | str, count: int
) -> None:
    items = np.random.default_rng(count).random((count, 1, 2, 3), dtype=np.float32)
    found = run(model_file, (batch, 1, 2, 3), items, Layout.NCHW)
    np.testing.assert_allclose(found["mean"], items.mean(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(found["max"], items.max(axis=(1, 2, 3)))


@pytest.mark.parametrize(
    ("batch", "count", "together"),
    [("n", 5, [5] * 5), ("n", MOST_ITEMS + 1, [MOST_ITEMS] * MOST_ITEMS + [1]), (4, 5, [4] * 5)],
)
def test_a_free_batch_is_bounded_and_a_fixed_one_is_filled_up(
    model_file: MakeFile, batch: int | str, count: int, together: list[int]
) -> None:
    items = np.zeros((count, 1, 2, 3), dtype=np.float32)
    assert run(model_file, (batch, 1, 2, 3), items, Layout.NCHW)["batch"].tolist() == together


@pytest.mark.parametrize("layout", [Layout.NCDHW, Layout.NDHWC])
def test_a_volume_is_one_item(model_file: MakeFile, layout: Layout) -> None:
    volume = np.random.default_rng(1).random((1, 2, 5, 4, 2), dtype=np.float32)
    found = run(model_file, (1, 2, 5, 4, 2), volume, layout)
    assert found["mean"].shape == (1,)
    assert found["mean"][0] == pytest.approx(volume.mean(), rel=1e-6)
