"""Models are rewritten to FP16, and ONNX Runtime says that they are still the same models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from simulators.small_models import Shipped, node, small_model

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions, Precision
from engines.errors import EngineBuildError
from engines.loading import load_package
from engines.parity import check_parity
from engines.quantised import is_quantised
from engines.tensorrt.building import RECIPE
from engines.tensorrt.precision import with_precision

Run = Callable[[bytes, NDArray[np.float32]], dict[str, NDArray[Any]]]
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The reference."""

    def run(model: bytes, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        path = tmp_path / f"{hashlib.sha256(model).hexdigest()}.onnx"
        path.write_bytes(model)
        file = VerifiedFile(path=path, sha256=hashlib.sha256(model).hexdigest())
        with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
            return engine.run({engine.inputs[0].name: values})

    return run


def half(model: bytes) -> onnx.ModelProto:
    """The rewritten model, which passes ONNX's own checker."""
    content = with_precision(model, Precision.FP16)
    onnx.checker.check_model(content, full_check=True)
    return onnx.load_model_from_string(content)


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {
        **{tensor.name: tensor.data_type for tensor in graph.initializer},
        **{
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.input, *graph.value_info, *graph.output)
        },
    }


def computed_in(model: onnx.ModelProto, operator: str) -> set[int]:
    """Types of what the nodes of an operator return."""
    of = types(model)
    return {of[each.output[0]] for each in model.graph.node if each.op_type == operator}


def noise(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(3).random(shape, dtype=np.float32)


# ------------------------------------------------------------------------- whole models


def test_fp32_is_what_the_model_is(shipped: Shipped) -> None:
    assert with_precision(shipped.model, Precision.FP32) is shipped.model


def test_a_shipped_model_in_fp16_answers_nearly_the_same(shipped: Shipped, run: Run) -> None:
    rule = shipped.manifest.input
    values = noise((3, *rule.shape[1:]))
    wide = run(shipped.model, values)
    narrow = run(with_precision(shipped.model, Precision.FP16), values)
    assert wide.keys() == narrow.keys()
    for name, expected in wide.items():
        assert narrow[name].dtype == np.float32
        np.testing.assert_allclose(narrow[name], expected, atol=0.02)
        assert not np.array_equal(narrow[name], expected)


def test_a_shipped_model_in_fp16_changes_no_golden_decision(
    shipped: Shipped, tmp_path: Path
) -> None:
    narrow = with_precision(shipped.model, Precision.FP16)
    path = tmp_path / "model.onnx"
    path.write_bytes(narrow)
    file = VerifiedFile(path=path, sha256=hashlib.sha256(narrow).hexdigest())
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
        report = check_parity(engine, load_package(shipped.folder), Precision.FP16)
    assert report.flips == 0
    assert 0 < report.max_absolute < 0.02


def test_a_shipped_model_in_fp16_takes_and_gives_the_same_tensors(shipped: Shipped) -> None:
    before, after = onnx.load_model_from_string(shipped.model), half(shipped.model)
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output


def test_a_shipped_model_in_fp16_has_half_the_weights(shipped: Shipped) -> None:
    assert len(with_precision(shipped.model, Precision.FP16)) < 0.55 * len(shipped.model)
    assert computed_in(half(shipped.model), "Conv") == {HALF}


def test_a_model_is_rewritten_as_the_recipe_of_plans_says(head_ct: Shipped) -> None:
    operators = [each.op_type for each in half(head_ct.model).graph.node]
    block = "Conv Relu Conv Add Relu"
    layers = f"Cast Conv Relu Conv Relu {block} Conv Relu {block} Conv Relu {block}"
    head = "ReduceMax Cast ReduceMean Cast Concat Gemm Gather Cast"
    assert (RECIPE, " ".join(operators)) == (
        1,
        f"{layers} {head}",
    ), "raise RECIPE, so that plans of the old way are built again"


def test_rewriting_gives_the_same_bytes_each_time(shipped: Shipped) -> None:
    assert with_precision(shipped.model, Precision.FP16) == with_precision(
        shipped.model, Precision.FP16
    )


def test_a_model_with_q_dq_nodes_stays_as_its_maker_made_it(
    quantised: bytes, head_ct: Shipped
) -> None:
    assert is_quantised(quantised)
    assert not is_quantised(head_ct.model)
    assert with_precision(quantised, Precision.FP16) == quantised


# --------------------------------------------------------------------------- what stays


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("ReduceMean", {"axes": [2, 3], "keepdims": 1}),
        ("Exp", {}),
        ("Softmax", {"axis": 1}),
        ("GlobalAveragePool", {}),
    ],
)
def test_what_could_leave_the_range_of_fp16_stays_fp32(
    operator: str, attributes: dict[str, Any]
) -> None:
    shape = (1, 3, 1, 1) if operator in {"ReduceMean", "GlobalAveragePool"} else (1, 3, 8, 8)
    model = half(
        small_model(
            [
                node("Relu", ["x"], ["a"]),
                node(operator, ["a"], ["b"], **attributes),
                node("Neg", ["b"], ["y"]),
            ],
            shape=(1, 3, 8, 8),
            output_shape=shape,
        )
    )
    assert computed_in(model, operator) == {FLOAT}
    assert computed_in(model, "Relu") == {HALF}


def test_a_sum_beyond_the_range_of_fp16_is_still_right(run: Run) -> None:
    model = small_model(
        [
            node("Relu", ["x"], ["a"]),
            node("ReduceSum", ["a", "axes"], ["b"], keepdims=1),
            node("Log", ["b"], ["y"]),
        ],
        shape=(1, 1, 64, 64),
        output_shape=(1, 1, 1, 1),
        weights={"axes": np.array([2, 3])},
    )
    values = np.full((1, 1, 64, 64), 64, dtype=np.float32)
    found = run(with_precision(model, Precision.FP16), values)["y"]
    np.testing.assert_allclose(found.item(), np.log(262_144), rtol=1e-6)


def test_sizes_are_computed_as_before(run: Run) -> None:
    # 4097 is no number of FP16.
    model = small_model(
        [
            node("Shape", ["x"], ["sizes"]),
            node("Cast", ["sizes"], ["as_float"], to=FLOAT),
            node("Mul", ["as_float", "one"], ["same"]),
            node("Cast", ["same"], ["back"], to=TensorProto.INT64),
            node("Relu", ["x"], ["a"]),
            node("Reshape", ["a", "back"], ["y"]),
        ],
        shape=(1, 1, 1, "w"),
        output_shape=(1, 1, 1, "w"),
        weights={"one": np.array(1.0, dtype=np.float32)},
    )
    values = noise((1, 1, 1, 4097))
    rewritten = half(model)
    assert computed_in(rewritten, "Mul") == {FLOAT}
    assert computed_in(rewritten, "Relu") == {HALF}
    np.testing.assert_allclose(run(rewritten.SerializeToString(), values)["y"], values, atol=1e-3)


def test_an_argument_that_must_be_fp32_stays_so(run: Run) -> None:
    model = small_model(
        [
            node("Relu", ["x"], ["a"]),
            node("Resize", ["a", "", "scales"], ["y"], mode="nearest"),
        ],
        output_shape=(1, 1, 8, 8),
        weights={"scales": np.array([1, 1, 2, 2], dtype=np.float32)},
    )
    rewritten = half(model)
    assert types(rewritten)["scales"] == FLOAT
    assert computed_in(rewritten, "Resize") == {HALF}
    values = noise((1, 1, 4, 4))
    np.testing.assert_allclose(
        run(rewritten.SerializeToString(), values)["y"],
        values.repeat(2, axis=2).repeat(2, axis=3),
        atol=1e-3,
    )


def test_whole_numbers_are_left_alone(run: Run) -> None:
    model = small_model(
        [
            node("Relu", ["x"], ["a"]),
            node("ArgMax", ["a"], ["place"], axis=3, keepdims=1),
            node("Cast", ["place"], ["y"], to=FLOAT),
        ],
        output_shape=(1, 1, 4, 1),
    )
    values = noise((1, 1, 4, 4))
    rewritten = half(model)
    assert computed_in(rewritten, "ArgMax") == {TensorProto.INT64}
    found = run(rewritten.SerializeToString(), values)["y"]
    np.testing.assert_array_equal(found[..., 0], values.argmax(axis=3))


# ------------------------------------------------------------------------------ the seams


def constant(name: str, **value: Any) -> NodeProto:
    made: NodeProto = helper.make_node("Constant", [], [name], **value)
    return made


@pytest.mark.parametrize(
    "value",
    [
        {"value": numpy_helper.from_array(np.array([0.5], dtype=np.float32))},
        {"value_float": 0.5},
        {"value_floats": [0.5]},
    ],
    ids=lambda each: next(iter(each)),
)
def test_constants_in_nodes_are_weights_too(value: dict[str, Any], run: Run) -> None:
    model = half(small_model([constant("c", **value), node("Mul", ["x", "c"], ["y"])]))
    assert computed_in(model, "Mul") == {HALF}
    values = noise((1, 1, 4, 4))
    np.testing.assert_allclose(run(model.SerializeToString(), values)["y"], values / 2, atol=1e-3)


def test_constants_that_are_whole_numbers_stay_whole(run: Run) -> None:
    model = half(
        small_model(
            [
                constant("to", value_ints=[1, 1, 16, 1]),
                node("Relu", ["x"], ["a"]),
                node("Reshape", ["a", "to"], ["y"]),
            ],
            output_shape=(1, 1, 16, 1),
        )
    )
    assert run(model.SerializeToString(), noise((1, 1, 4, 4)))["y"].shape == (1, 1, 16, 1)


def test_a_weight_that_both_kinds_of_layers_read_is_kept_in_both(run: Run) -> None:
    model = small_model(
        [
            node("Mul", ["x", "w"], ["a"]),
            node("Pow", ["a", "w"], ["y"]),
        ],
        weights={"w": np.array(2.0, dtype=np.float32)},
    )
    rewritten = half(model)
    assert sorted(tensor.data_type for tensor in rewritten.graph.initializer) == [FLOAT, HALF]
    values = noise((1, 1, 4, 4))
    np.testing.assert_allclose(
        run(rewritten.SerializeToString(), values)["y"], (2 * values) ** 2, atol=5e-3
    )


def test_an_output_that_another_layer_reads_stays_an_output(run: Run) -> None:
    graph = helper.make_graph(
        [node("Relu", ["x"], ["first"]), node("Neg", ["first"], ["second"])],
        "test",
        [helper.make_tensor_value_info("x", FLOAT, (1, 4))],
        [helper.make_tensor_value_info(name, FLOAT, (1, 4)) for name in ("first", "second")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    values = np.array([[-1, 0, 0.5, 2]], dtype=np.float32)
    found = run(half(model.SerializeToString()).SerializeToString(), values)
    np.testing.assert_array_equal(found["first"], np.maximum(values, 0))
    np.testing.assert_array_equal(found["second"], -np.maximum(values, 0))


def test_a_value_is_cast_once_for_all_who_read_it() -> None:
    model = half(
        small_model(
            [
                node("Relu", ["x"], ["a"]),
                node("Neg", ["x"], ["b"]),
                node("Add", ["a", "b"], ["y"]),
            ]
        )
    )
    casts = [each for each in model.graph.node if each.op_type == "Cast"]
    assert len(casts) == 2


def test_names_that_are_taken_are_not_given_twice(run: Run) -> None:
    model = small_model([node("Relu", ["x"], ["x/fp16"]), node("Neg", ["x/fp16"], ["y"])])
    values = noise((1, 1, 4, 4))
    found = run(half(model).SerializeToString(), values)["y"]
    np.testing.assert_allclose(found, -values, atol=1e-3)


def test_a_weight_beyond_the_range_of_fp16_is_refused() -> None:
    model = small_model(
        [node("Mul", ["x", "far"], ["y"])],
        weights={"far": np.array([70_000], dtype=np.float32)},
    )
    with pytest.raises(EngineBuildError, match=r"'far' of model.onnx .* choose precision fp32"):
        with_precision(model, Precision.FP16)


@pytest.mark.parametrize(
    ("is_imported", "reason"),
    [(False, "the types of model.onnx are not known"), (True, "the type of tensor 'a' ")],
)
def test_a_model_of_unknown_types_is_refused(is_imported: bool, reason: str) -> None:
    model = onnx.load_model_from_string(
        small_model(
            [node("Mystery", ["x"], ["a"], domain="com.example"), node("Relu", ["a"], ["y"])]
        )
    )
    if is_imported:
        model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(EngineBuildError, match=reason + r".* choose precision fp32"):
        with_precision(model.SerializeToString(), Precision.FP16)


def test_an_infinite_weight_is_one_in_fp16_too(run: Run) -> None:
    model = small_model(
        [node("Min", ["x", "bound"], ["y"])],
        weights={"bound": np.array([np.inf], dtype=np.float32)},
    )
    values = noise((1, 1, 4, 4))
    found = run(with_precision(model, Precision.FP16), values)["y"]
    np.testing.assert_allclose(found, values, atol=1e-3)
