"""Many batches in a row: what comes out is what single runs give, and copies overlap with work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from simulators.tensorrt_rig import TensorRtRig
from simulators.tiny_model import tiny_model

from engines.batching import run_batches
from engines.checksums import VerifiedFile
from engines.contract import Engine
from engines.errors import EngineRunError, EngineStateError, TensorMismatchError
from engines.package import InputRule

ModelFile = Callable[[onnx.ModelProto], VerifiedFile]
Inputs = Mapping[str, NDArray[Any]]


@pytest.fixture
def engine(rig: TensorRtRig, model_file: ModelFile) -> Iterator[Engine]:
    with rig.open(model_file(tiny_model())) as opened:
        yield opened


def batches(count: int, most: int = 8) -> list[dict[str, NDArray[Any]]]:
    random = np.random.default_rng(count)
    return [
        {"pixels": random.random((random.integers(1, most + 1), 1, 16, 16), dtype=np.float32)}
        for _ in range(count)
    ]


def same(one: Inputs, other: Inputs) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_many_batches_give_what_single_runs_give(engine: Engine) -> None:
    given = batches(100)
    streamed = list(engine.stream(given))
    assert len(streamed) == len(given)
    for inputs, outputs in zip(given, streamed, strict=True):
        same(outputs, engine.run(inputs))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_batches_too(engine: Engine, count: int) -> None:
    given = batches(count)
    streamed = list(engine.stream(given))
    for inputs, outputs in zip(given, streamed, strict=True):
        same(outputs, engine.run(inputs))


def test_the_next_batch_is_on_its_way_before_the_last_one_is_taken(
    rig: TensorRtRig, engine: Engine
) -> None:
    told: list[str] = []

    def coming() -> Iterator[Inputs]:
        for index, inputs in enumerate(batches(4)):
            told.append(f"ask {index}")
            yield inputs

    rig.world.operations.clear()
    for index, _ in enumerate(engine.stream(coming())):
        told.append(f"take {index}")
        if index == 0:
            assert rig.world.operations.count("enqueue") == 2
    assert told == ["ask 0", "ask 1", "take 0", "ask 2", "take 1", "ask 3", "take 2", "take 3"]


def test_outputs_belong_to_the_caller(engine: Engine) -> None:
    streamed = engine.stream(batches(5))
    first = next(streamed)
    before = {name: array.copy() for name, array in first.items()}
    first["logits"][...] += 0  # may be written
    list(streamed)
    same(first, before)


def test_inputs_may_change_as_soon_as_the_next_ones_are_asked_for(engine: Engine) -> None:
    given = batches(6, most=1)
    shared = np.zeros((1, 1, 16, 16), dtype=np.float32)

    def coming() -> Iterator[Inputs]:
        for inputs in given:
            shared[...] = inputs["pixels"]
            yield {"pixels": shared}

    for inputs, outputs in zip(given, engine.stream(coming()), strict=True):
        same(outputs, engine.run(inputs))


def test_runs_in_between_and_a_second_stream_do_no_harm(engine: Engine) -> None:
    one, two, between = batches(7), batches(7, most=3), batches(7, most=2)
    expected = [[engine.run(inputs) for inputs in each] for each in (one, two, between)]
    streams = zip(engine.stream(one), engine.stream(two), strict=True)
    for index, (first, second) in enumerate(streams):
        same(engine.run(between[index]), expected[2][index])
        same(first, expected[0][index])
        same(second, expected[1][index])


def test_a_stream_that_is_left_early_leaves_the_engine_as_it_was(engine: Engine) -> None:
    for inputs in batches(6):
        streamed = engine.stream(batches(5))
        next(streamed)
        streamed.close()  # type: ignore[attr-defined]  # it is a generator
        same(engine.run(inputs), next(iter(engine.stream([inputs]))))


def test_what_came_before_a_wrong_batch_is_given_before_the_error(engine: Engine) -> None:
    given = batches(3)
    streamed = engine.stream([*given, {"pixels": np.zeros((1, 1, 16), dtype=np.float32)}])
    for inputs in given:
        same(next(streamed), engine.run(inputs))
    with pytest.raises(TensorMismatchError, match="has shape"):
        next(streamed)


def test_what_came_before_a_failure_of_the_source_is_given_before_it(engine: Engine) -> None:
    def coming() -> Iterator[Inputs]:
        yield from batches(3)
        raise OSError("the disk is gone")

    streamed = engine.stream(coming())
    assert len([next(streamed) for _ in range(3)]) == 3
    with pytest.raises(OSError, match="disk"):
        next(streamed)


def test_a_library_that_refuses_in_the_middle_is_told_and_the_engine_goes_on(
    rig: TensorRtRig, engine: Engine
) -> None:
    rig.faults.no_capture = True
    rig.faults.enqueues_before_failure = 2
    streamed = engine.stream(batches(5))
    assert len([next(streamed) for _ in range(2)]) == 2
    with pytest.raises(EngineRunError, match="doctor"):
        next(streamed)
    rig.faults.enqueues_before_failure = None
    same(engine.run(batches(1)[0]), next(iter(engine.stream(batches(1)))))


def test_a_stream_ends_with_its_engine(rig: TensorRtRig, model_file: ModelFile) -> None:
    with rig.open(model_file(tiny_model())) as engine:
        streamed = engine.stream(batches(5))
        next(streamed)
    with pytest.raises(EngineStateError):
        list(streamed)


def test_an_answer_that_is_no_number_is_not_given(rig: TensorRtRig, model_file: ModelFile) -> None:
    with rig.open(model_file(tiny_model(gain=1e38))) as engine:
        streamed = engine.stream(
            {"pixels": np.full((1, 1, 16, 16), level, dtype=np.float32)} for level in (0.5, 10.0)
        )
        assert np.isfinite(next(streamed)["logits"]).all()
        with pytest.raises(Exception, match="NaN or infinity"):
            next(streamed)


def test_more_items_than_a_batch_holds_run_as_several_that_overlap(
    rig: TensorRtRig, engine: Engine
) -> None:
    rule = InputRule(name="pixels", dtype="float32", shape=(-1, 1, 16, 16))
    items = np.random.default_rng(1).random((19, 1, 16, 16), dtype=np.float32)
    rig.world.operations.clear()
    answers = run_batches(engine, rule, items)["logits"]
    single = [engine.run({"pixels": items[index : index + 1]})["logits"] for index in range(19)]
    np.testing.assert_allclose(answers, np.concatenate(single), atol=1e-5)
