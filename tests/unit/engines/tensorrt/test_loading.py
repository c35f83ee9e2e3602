"""What a plan says of itself, and why one cannot be run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from simulators.tensorrt_rig import TensorRtRig
from simulators.tiny_model import tiny_model

from engines.batching import run_batches
from engines.checksums import VerifiedFile
from engines.contract import Precision
from engines.errors import EngineLoadError, EngineUnavailableError, TensorMismatchError
from engines.package import InputRule

ModelFile = Callable[[onnx.ModelProto], VerifiedFile]


def test_a_library_that_makes_no_runtime_is_not_available(
    rig: TensorRtRig, model_file: ModelFile
) -> None:
    rig.faults.no_runtime = True
    with (
        pytest.raises(EngineUnavailableError, match="CUDA initialization failure") as caught,
        rig.open(model_file(tiny_model())),
    ):
        pass
    assert "doctor" in str(caught.value)
    assert rig.leftovers() == {}, "with the error still held"


def test_sizes_that_the_library_wants_on_the_processor_are_refused(
    rig: TensorRtRig, model_file: ModelFile
) -> None:
    rig.faults.sizes_on_host = True
    with (
        pytest.raises(EngineLoadError, match="only its batch is free"),
        rig.open(model_file(tiny_model())),
    ):
        pass


def test_an_output_of_a_type_that_no_model_here_has_is_refused(
    rig: TensorRtRig, model_file: ModelFile
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Greater", ["x", "half"], ["y"])],
        "flags",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n",))],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, ("n",))],
        [helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with (
        pytest.raises(EngineLoadError, match=r"'y' is .*BOOL.*float32"),
        rig.open(model_file(model)),
    ):
        pass


def test_on_a_dla_one_batch_is_fixed_and_filled_up(rig: TensorRtRig, model_file: ModelFile) -> None:
    rig.faults.dla_cores = 2
    model = model_file(tiny_model())
    rule = InputRule(name="pixels", dtype="float32", shape=(-1, 1, 16, 16))
    items = np.random.default_rng(2).random((5, 1, 16, 16), dtype=np.float32)
    choice: dict[str, Any] = {"dla_core": 1, "precision": Precision.FP16, "most_items": 4}
    with rig.open(model, **choice) as engine:
        assert engine.inputs[0].shape == (4, 1, 16, 16)
        assert engine.most_items is None
        assert "DLA 1 fp16" in engine.metadata.provider
        with pytest.raises(TensorMismatchError):
            engine.run({"pixels": items[:3]})
        on_dla = run_batches(engine, rule, items)["logits"]
    with rig.open(model, **choice):
        assert rig.world.builds == 1
    with rig.open(model) as engine:
        np.testing.assert_allclose(
            on_dla, run_batches(engine, rule, items)["logits"], atol=1e-2, rtol=1e-2
        )
    assert rig.world.builds == 2


def test_of_two_profiles_the_narrowest_that_fits_is_taken(
    rig: TensorRtRig, model_file: ModelFile
) -> None:
    with rig.open(model_file(tiny_model()), most_items=8) as engine:
        assert engine.inputs[0].shape == (-1, 1, 16, 16)
        for count in (1, 2, 8, 1):
            zeros = np.zeros((count, 1, 16, 16), dtype=np.float32)
            assert engine.run({"pixels": zeros})["logits"].shape == (count, 2)
