"""TensorRT's engine on the stand-in for its library: plans, refusals, memory, and what is left."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from simulators.tensorrt_rig import TensorRtRig
from simulators.tiny_model import tiny_model

from engines.checksums import VerifiedFile
from engines.contract import Backend, CudaLibrary, EngineOptions, Precision
from engines.device.contract import Device
from engines.errors import (
    DeviceUnavailableError,
    EngineBuildError,
    EngineError,
    EngineLoadError,
    EngineMemoryError,
    EngineRunError,
    EngineStateError,
    EngineUnavailableError,
    TensorMismatchError,
)
from engines.tensorrt.engine import TensorRtEngine

ModelFile = Callable[[onnx.ModelProto], VerifiedFile]


@pytest.fixture
def model(model_file: ModelFile) -> VerifiedFile:
    return model_file(tiny_model())


def pixels(*levels: float) -> dict[str, NDArray[Any]]:
    column = np.array(levels, dtype=np.float32)[:, None, None, None]
    return {"pixels": np.ascontiguousarray(np.broadcast_to(column, (len(levels), 1, 16, 16)))}


def logits(*levels: float) -> list[list[float]]:
    """What the tiny model gives."""
    return [[4 * level - 2, 8 * level - 2] for level in levels]


def quantised_tiny_model() -> onnx.ModelProto:
    """The tiny model, with its input in 8 bits."""
    made = tiny_model()
    scale = [
        numpy_helper.from_array(np.array(1 / 127, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
    ]
    made.graph.initializer.extend(scale)
    nodes = list(made.graph.node)
    nodes[1].input[0] = "again"
    del made.graph.node[:]
    made.graph.node.extend(
        [
            nodes[0],
            helper.make_node("QuantizeLinear", ["real", "scale", "zero"], ["steps"]),
            helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["again"]),
            *nodes[1:],
        ]
    )
    return made


def check(engine: TensorRtEngine, *levels: float) -> None:
    np.testing.assert_allclose(engine.run(pixels(*levels))["logits"], logits(*levels), atol=1e-5)


def opened(rig: TensorRtRig, model: VerifiedFile, **changes: Any) -> None:
    """One start of the device."""
    with rig.open(model, **changes) as engine:
        check(engine, 0.25, 0.75)


# ---------------------------------------------------------------------- plans


def test_a_plan_is_built_once_and_found_again(rig: TensorRtRig, model: VerifiedFile) -> None:
    opened(rig, model)
    opened(rig, model)
    assert rig.world.builds == 1


@pytest.mark.parametrize(
    "changes", [{"precision": Precision.FP16}, {"most_items": 4}], ids=["precision", "items"]
)
def test_another_choice_is_another_plan(
    rig: TensorRtRig, model: VerifiedFile, changes: dict[str, Any]
) -> None:
    opened(rig, model)
    with rig.open(model, **changes) as engine:
        np.testing.assert_allclose(
            engine.run(pixels(0.5))["logits"], logits(0.5), atol=1e-2, rtol=1e-2
        )
    assert rig.world.builds == 2


def test_an_engine_says_which_plan_it_runs(rig: TensorRtRig, model: VerifiedFile) -> None:
    with rig.open(model) as engine:
        stored = engine.plans.find(engine.plan_key)
        assert stored is not None
        assert engine.plan == dataclasses.replace(stored, plan=b"")
        assert engine.plan_key.onnx_sha256 == model.sha256
        assert engine.plan_key.backend is rig.backend
        assert engine.plan_key.gpu_name == engine.device.info.name
        assert engine.metadata.provider.endswith(" fp32")
    with pytest.raises(EngineStateError):
        _ = engine.plan
    with pytest.raises(EngineStateError):
        _ = engine.device


@pytest.mark.parametrize("precision", list(Precision), ids=lambda each: each.value)
def test_a_model_with_q_dq_nodes_is_told_as_int8_in_any_precision(
    rig: TensorRtRig, model_file: ModelFile, precision: Precision
) -> None:
    with rig.open(model_file(quantised_tiny_model()), precision=precision) as engine:
        name = engine.device.info.name
        assert engine.metadata.provider == f"{name} int8 (Q/DQ)"
        assert engine.plan_key.numbers == "int8 (Q/DQ)"
        found = engine.run(pixels(0.25, 0.75))["logits"]
    np.testing.assert_allclose(found, logits(0.25, 0.75), atol=8 / 127)
    with rig.open(model_file(tiny_model()), precision=precision) as engine:
        assert engine.metadata.provider == f"{name} {precision.value}"


def test_a_plan_that_the_library_refuses_is_put_aside_and_built_again(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    opened(rig, model)
    rig.faults.no_engine = 1
    opened(rig, model)
    assert rig.world.builds == 2
    assert list((rig.folder / "quarantine").iterdir())
    opened(rig, model)
    assert rig.world.builds == 2


def test_a_plan_that_was_changed_on_disk_never_reaches_the_library(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    opened(rig, model)
    loads = rig.world.loads
    for path in rig.folder.rglob("*.plan"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    opened(rig, model)
    assert (rig.world.builds, rig.world.loads) == (2, loads + 1)


def test_a_plan_that_cannot_be_read_right_after_it_was_built_is_an_error_and_not_kept(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    rig.faults.broken_plan = True
    with pytest.raises(EngineLoadError, match="doctor") as caught, rig.open(model):
        pass
    assert rig.leftovers() == {}, "with the error still held"
    assert caught.value.__cause__ is not None
    assert list((rig.folder / "quarantine").iterdir())
    rig.faults.broken_plan = False
    opened(rig, model)


def test_a_plan_for_which_there_was_no_memory_stays(rig: TensorRtRig, model: VerifiedFile) -> None:
    opened(rig, model)
    rig.faults.no_engine = 1
    rig.faults.no_engine_reason = "Error Code 2: OutOfMemory (Requested size was 1048576 bytes.)"
    with pytest.raises(EngineMemoryError, match="fewer items"), rig.open(model):
        pass
    opened(rig, model)
    assert rig.world.builds == 1


def test_nothing_is_built_where_that_is_not_allowed(rig: TensorRtRig, model: VerifiedFile) -> None:
    with pytest.raises(EngineLoadError, match="engines build"), rig.open(model, may_build=False):
        pass
    opened(rig, model)
    opened(rig, model, may_build=False)


def test_two_that_start_at_once_build_once(rig: TensorRtRig, model: VerifiedFile) -> None:
    failures: list[BaseException] = []
    ready = threading.Barrier(2, timeout=30)

    def start() -> None:
        try:
            ready.wait()
            opened(rig, model)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=start, name=f"start {index}") for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert rig.world.builds == 1


def test_building_is_told_and_can_be_stopped(rig: TensorRtRig, model: VerifiedFile) -> None:
    told: list[tuple[str, int, int]] = []

    def stop(phase: str, done: int, steps: int) -> bool:
        told.append((phase, done, steps))
        return False

    with pytest.raises(EngineBuildError, match="stopped"), rig.open(model, on_build=stop):
        pass
    assert told == [("Building engine", 0, 2)]
    assert rig.leftovers() == {}
    opened(rig, model)


def test_an_interruption_while_building_gives_everything_back(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    def interrupt(phase: str, done: int, steps: int) -> bool:
        raise KeyboardInterrupt(phase, done, steps)

    with pytest.raises(KeyboardInterrupt), rig.open(model, on_build=interrupt):
        pass
    assert rig.leftovers() == {}


def test_a_refusal_to_build_is_told_in_the_vendors_words(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    rig.faults.no_plan = ("Could not find any implementation for node {logits}.",)
    with pytest.raises(EngineBuildError, match="Could not find any implementation"):
        rig.open(model).__enter__()


def test_a_dla_that_is_not_there_is_never_the_gpu_in_its_place(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    with (
        pytest.raises(EngineBuildError, match="DLA core 0"),
        rig.open(model, dla_core=0, precision=Precision.FP16),
    ):
        pass


def test_without_a_folder_for_plans_there_is_no_engine(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    with pytest.raises(EngineUnavailableError, match="folder"):
        TensorRtEngine(model, EngineOptions(), find_library=lambda _: rig.library)


def test_without_a_gpu_there_is_no_engine(rig: TensorRtRig, model: VerifiedFile) -> None:
    def nothing(libraries: tuple[CudaLibrary, ...], index: int, /, *, least_version: int) -> Device:
        raise DeviceUnavailableError(f"no driver for {libraries} {index} {least_version}")

    with pytest.raises(EngineUnavailableError, match="no driver"):
        TensorRtEngine(
            model,
            EngineOptions(accelerator=rig.options()),
            find_library=lambda _: rig.library,
            find_device=nothing,
        )


# --------------------------------------------------------------------- memory


def test_memory_that_runs_out_at_any_allocation_is_named_and_all_is_given_back(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    opened(rig, model)
    refused = 0
    while True:
        rig.refuse_memory(after=refused)
        try:
            with rig.open(model):
                break
        except EngineMemoryError:
            assert rig.leftovers() == {}
            refused += 1
    rig.give_memory()
    assert refused >= 5  # between the layers; input and output, of two slots
    opened(rig, model)
    assert rig.world.builds == 1


def test_a_context_for_which_there_is_no_memory_is_named(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    rig.faults.no_context = 1
    with pytest.raises(EngineMemoryError, match="makes no context") as caught, rig.open(model):
        pass
    assert rig.leftovers() == {}, "with the error still held"
    assert "OutOfMemory" in str(caught.value)


def test_an_engine_that_takes_more_than_it_may_is_refused_before_it_takes_it(
    rig: TensorRtRig, model_file: ModelFile
) -> None:
    large = model_file(tiny_model(("n", 1, 1024, 1024)))
    with (
        pytest.raises(EngineMemoryError, match="fewer items"),
        rig.open(large, memory_bytes=16 << 20),
    ):
        pass
    with rig.open(large, memory_bytes=64 << 20, most_items=1) as engine:
        zeros = np.zeros((1, 1, 1024, 1024), dtype=np.float32)
        np.testing.assert_allclose(engine.run({"pixels": zeros})["logits"], [[-2, -2]])


def test_nothing_is_taken_or_kept_over_10_000_runs(rig: TensorRtRig, model: VerifiedFile) -> None:
    given = pixels(0.25, 0.5)
    with rig.open(model) as engine:
        for _ in range(3):  # from then on as a graph
            check(engine, 0.25, 0.5)
        open_before, alive_before = engine.device.open_resources(), dict(rig.world.alive)
        free_before = engine.device.memory().free_bytes
        for _ in range(10_000):
            engine.run(given)
        assert engine.device.open_resources() == open_before
        assert dict(rig.world.alive) == alive_before
        assert engine.device.memory().free_bytes == free_before
        check(engine, 0.25, 0.5)


# ----------------------------------------------------------------------- runs


def test_shapes_may_change_from_run_to_run(rig: TensorRtRig, model: VerifiedFile) -> None:
    random = np.random.default_rng(5)
    with rig.open(model, most_items=24) as engine:
        for _ in range(200):
            check(engine, *random.random(random.integers(1, 25)))
        # More shapes came twice than graphs are kept.
        assert engine.graphs == 16


def test_a_batch_that_it_was_not_built_for_is_refused_with_what_it_was_built_for(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    with rig.open(model, most_items=4) as engine:
        with pytest.raises(TensorMismatchError, match=r"\(4, 1, 16, 16\)"):
            engine.run(pixels(*[0.5] * 5))
        assert engine.most_items == 4
        check(engine, *[0.5] * 4)


def test_a_fixed_shape_is_a_graph_from_the_third_run_on(
    rig: TensorRtRig, model_file: ModelFile
) -> None:
    with rig.open(model_file(tiny_model((1, 1, 16, 16)))) as engine:
        assert engine.graphs == 1  # since the warm-up
        rig.world.operations.clear()
        check(engine, 0.5)
        assert rig.world.operations == ["run"]


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        (Backend.TENSORRT, "no_capture"),
        (Backend.TENSORRT, "no_context"),
        (Backend.TENSORRT_RTX, "says_not_capturable"),
    ],
)
def test_where_there_is_no_graph_the_plan_runs_without_one(
    tmp_path: Path, model: VerifiedFile, backend: Backend, fault: str
) -> None:
    rig = TensorRtRig(tmp_path / "plans", backend)
    rig.faults.contexts_before = 1  # the first is for what is not captured
    setattr(rig.faults, fault, 1)
    with rig.open(model) as engine:
        for levels in ([0.25], [0.5, 0.75], [0.25], [0.5, 0.75]):
            check(engine, *levels)
        assert engine.graphs == 0
    assert rig.leftovers() == {}


def test_a_library_that_refuses_to_run_is_told_and_all_is_given_back(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    rig.faults.no_capture = True
    with rig.open(model) as engine:
        check(engine, 0.5)
        rig.faults.enqueues_before_failure = 1
        check(engine, 0.5)
        with pytest.raises(EngineRunError, match="illegal memory access") as caught:
            engine.run(pixels(0.5))
        assert "doctor" in str(caught.value)
        rig.faults.enqueues_before_failure = None
        check(engine, 0.75)


@pytest.mark.parametrize("enqueues", range(4))
def test_a_warm_up_that_fails_gives_everything_back(
    rig: TensorRtRig, model: VerifiedFile, enqueues: int
) -> None:
    rig.faults.enqueues_before_failure = enqueues
    rig.faults.no_capture = True
    with pytest.raises(EngineError, match="illegal memory access") as caught, rig.open(model):
        pass
    assert rig.leftovers() == {}, "with the error still held"
    assert caught.value.__traceback__ is not None


def test_two_engines_work_at_once(rig: TensorRtRig, model_file: ModelFile) -> None:
    other = model_file(tiny_model(gain=2.0))
    with rig.open(model_file(tiny_model())) as one, rig.open(other) as two:
        for level in (0.25, 0.5, 0.75, 1.0):
            check(one, level)
            np.testing.assert_allclose(
                two.run(pixels(level))["logits"], [[2 * level - 2, 4 * level - 2]], atol=1e-5
            )


def test_layers_are_named_and_timed(rig: TensorRtRig, model: VerifiedFile) -> None:
    with rig.open(model) as engine:
        times = engine.layer_times(pixels(0.25, 0.5))
        assert [name for name, _ in times] == [layer.name for layer in engine.layers]
        assert all(milliseconds > 0 for _, milliseconds in times)
        check(engine, 0.25, 0.5)


# --------------------------------------------------------------------- staged


@dataclasses.dataclass(frozen=True)
class Staged:
    """An input that somebody else has put on the device."""

    buffer: Any
    shape: tuple[int, ...]
    ready: Any


def staged(engine: TensorRtEngine, *levels: float) -> Staged:
    device, array = engine.device, pixels(*levels)["pixels"]
    buffer, stream, ready = device.allocate(array.nbytes), device.stream(), device.event()
    device.copy_in(buffer, array, stream)
    ready.record(stream)
    return Staged(buffer, array.shape, ready)


def test_an_input_that_lies_on_the_device_is_read_there(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    with rig.open(model) as engine:
        for levels in ([0.25, 0.5], [0.75], [0.25, 0.5]):
            given = staged(engine, *levels)
            for _ in range(4):  # also as a graph
                np.testing.assert_allclose(
                    engine.run_staged({"pixels": given})["logits"], logits(*levels), atol=1e-5
                )
            check(engine, *levels)


@pytest.mark.parametrize("name", ["pixels", "other"])
def test_a_staged_input_that_does_not_fit_is_refused(
    rig: TensorRtRig, model: VerifiedFile, name: str
) -> None:
    with rig.open(model, most_items=2) as engine:
        given = staged(engine, 0.1, 0.2, 0.3)
        with pytest.raises(TensorMismatchError):
            engine.run_staged({name: given})
        short = dataclasses.replace(staged(engine, 0.1), shape=(2, 1, 16, 16))
        with pytest.raises(TensorMismatchError, match="bytes"):
            engine.run_staged({"pixels": short})
