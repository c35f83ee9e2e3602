"""Every back end keeps the engine's contract.

A new back end adds its member to ``Backend``; the suite then runs on it too. Those that cannot be
used on this machine are skipped by name, once each. TensorRT runs as its stand-in besides, on the
host or on what EDGE_TRIAGE_TEST_DEVICE names (``tensorrt/test_on_the_fake.py`` starts such
processes).
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from simulators.tensorrt_rig import TensorRtRig

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import (
    FREE,
    AcceleratorOptions,
    Backend,
    ElementType,
    Engine,
    EngineDescription,
    EngineMetadata,
    EngineOptions,
    TensorSpec,
    all_finite,
)
from engines.errors import (
    EngineLoadError,
    EngineOutputError,
    EngineRunError,
    EngineStateError,
    EngineUnavailableError,
    PackageIntegrityError,
    TensorMismatchError,
)

ModelFile = Callable[[onnx.ModelProto], VerifiedFile]
MakeModel = Callable[..., onnx.ModelProto]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A back end as this machine has it."""

    backend: Backend
    open: Callable[[VerifiedFile, EngineOptions], Engine]
    is_on_gpu: bool


SIMULATED = (Backend.TENSORRT, Backend.TENSORRT_RTX)


def why_not(backend: Backend) -> str | None:
    """Says why a back end cannot be used here, or None."""
    options = EngineOptions(accelerator=AcceleratorOptions(folder=Path("unused")))
    try:
        open_engine(backend, VerifiedFile(path=Path("unused"), sha256="0" * 64), options)
    except EngineUnavailableError as error:
        return str(error)
    return None


MISSING = {each: reason for each in Backend if (reason := why_not(each)) is not None}


@pytest.mark.parametrize("backend", list(Backend), ids=lambda backend: backend.value)
def test_a_back_end_that_cannot_be_used_here_says_why(backend: Backend) -> None:
    if backend in MISSING:
        assert len(MISSING[backend]) > len(backend.value)
        pytest.skip(f"the contract was not tried with {backend.value}: {MISSING[backend]}")


@pytest.fixture(
    params=[
        *(pytest.param((each, False), id=each.value) for each in Backend if each not in MISSING),
        *(pytest.param((each, True), id=f"simulated-{each.value}") for each in SIMULATED),
    ]
)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    backend, is_simulated = request.param
    if is_simulated:
        rig = TensorRtRig(tmp_path / "plans", backend)
        yield Case(backend=backend, open=rig.open, is_on_gpu=False)
        assert rig.leftovers() == {}
        return
    options = AcceleratorOptions(folder=tmp_path / "plans")

    def open_installed(model: VerifiedFile, wanted: EngineOptions) -> Engine:
        return open_engine(backend, model, dataclasses.replace(wanted, accelerator=options))

    is_on_gpu = backend is not Backend.ONNXRUNTIME
    yield Case(backend=backend, open=open_installed, is_on_gpu=is_on_gpu)


@pytest.fixture
def engine(case: Case, model_file: ModelFile, make_model: MakeModel) -> Iterator[Engine]:
    with case.open(model_file(make_model()), EngineOptions()) as opened:
        yield opened


def slabs(*levels: float) -> NDArray[np.float32]:
    return np.ascontiguousarray(
        np.broadcast_to(
            np.array(levels, dtype=np.float32)[:, None, None, None], (len(levels), 2, 8, 8)
        )
    )


def test_a_loaded_engine_names_its_software_its_model_and_its_tensors(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    model = model_file(make_model())
    with case.open(model, EngineOptions()) as engine:
        assert engine.metadata.backend is case.backend
        assert engine.metadata.model_sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest()
        assert engine.metadata.provider
        assert engine.metadata.version
        assert engine.inputs == (
            TensorSpec(name="slabs", element_type=ElementType.FLOAT32, shape=(FREE, 2, 8, 8)),
        )
        assert engine.outputs == (
            TensorSpec(name="logits", element_type=ElementType.FLOAT32, shape=(FREE,)),
        )


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_free_dimension_may_differ_from_run_to_run(engine: Engine, count: int) -> None:
    levels = [index / 8 for index in range(count)]
    logits = engine.run({"slabs": slabs(*levels)})["logits"]
    np.testing.assert_allclose(logits, [8 * (level - 0.5) for level in levels], atol=1e-5)


def test_a_second_run_leaves_the_first_output_as_it_was(engine: Engine) -> None:
    first = engine.run({"slabs": slabs(0.25, 0.75)})["logits"]
    before = first.copy()
    second = engine.run({"slabs": slabs(0.5, 1.0)})["logits"]
    np.testing.assert_array_equal(first, before)
    assert not np.shares_memory(first, second)


def test_outputs_outlive_the_engine_and_may_be_written(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    with case.open(model_file(make_model()), EngineOptions()) as engine:
        logits = engine.run({"slabs": slabs(0.75)})["logits"]
    logits += 1
    np.testing.assert_allclose(logits, [3.0], atol=1e-5)


def test_an_output_that_passes_its_input_through_is_a_copy(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    model = make_model([helper.make_node("Identity", ["slabs"], ["logits"])], input_shape=("n",))
    given = np.array([1.0, 2.0], dtype=np.float32)
    with case.open(model_file(model), EngineOptions()) as engine:
        returned = engine.run({"slabs": given})["logits"]
    assert not np.shares_memory(given, returned)


def test_inputs_are_not_changed(engine: Engine) -> None:
    given = slabs(0.25, 0.75)
    given.flags.writeable = False
    engine.run({"slabs": given})
    np.testing.assert_array_equal(given, slabs(0.25, 0.75))


def test_an_input_that_is_a_strided_view_is_read_rightly(engine: Engine) -> None:
    view = slabs(0.0, 0.25, 0.5, 0.75)[::2]
    np.testing.assert_allclose(engine.run({"slabs": view})["logits"], [-4.0, 0.0], atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_number_of_threads_does_not_change_the_result(
    case: Case, model_file: ModelFile, make_model: MakeModel, threads: int
) -> None:
    options = EngineOptions(intra_op_threads=threads)
    with case.open(model_file(make_model()), options) as engine:
        logits = engine.run({"slabs": slabs(0.1, 0.9)})["logits"]
    np.testing.assert_allclose(logits, [-3.2, 3.2], atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "the model takes"),
        ({"other": slabs(0.5)}, "the model takes"),
        ({"slabs": slabs(0.5), "more": slabs(0.5)}, "the model takes"),
        ({"slabs": slabs(0.5).astype(np.float64)}, "float64, not float32"),
        ({"slabs": slabs(0.5).astype(">f4")}, "not float32"),
        ({"slabs": slabs(0.5)[0]}, "has shape"),
        ({"slabs": slabs(0.5)[:, :, :7]}, "has shape"),
        ({"slabs": slabs(0.5)[:0]}, "has shape"),
        ({"slabs": slabs(0.5, np.nan)}, "NaN or infinity"),
        ({"slabs": slabs(0.5, -np.inf)}, "NaN or infinity"),
    ],
)
def test_wrong_inputs_are_refused_with_the_tensor_and_the_fault(
    engine: Engine, inputs: dict[str, NDArray[Any]], words: str
) -> None:
    with pytest.raises(TensorMismatchError, match=words):
        engine.run(inputs)


def test_an_engine_answers_nothing_before_it_is_entered(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    engine = case.open(model_file(make_model()), EngineOptions())
    for use in (
        lambda: engine.metadata,
        lambda: engine.inputs,
        lambda: engine.outputs,
        lambda: engine.run({"slabs": slabs(0.5)}),
    ):
        with pytest.raises(EngineStateError):
            use()


def test_an_engine_answers_nothing_after_it_was_left(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    with case.open(model_file(make_model()), EngineOptions()) as engine:
        pass
    with pytest.raises(EngineStateError):
        engine.run({"slabs": slabs(0.5)})
    with pytest.raises(EngineStateError):
        _ = engine.metadata


def test_an_engine_is_entered_once(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    with case.open(model_file(make_model()), EngineOptions()) as engine:
        with pytest.raises(EngineStateError), engine:
            pass
        assert engine.run({"slabs": slabs(0.5)})


def test_an_engine_is_freed_when_its_block_fails(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    engine = case.open(model_file(make_model()), EngineOptions())
    with pytest.raises(ZeroDivisionError), engine:
        _ = 1 / 0
    with pytest.raises(EngineStateError):
        _ = engine.metadata


def test_bytes_that_are_no_model_are_refused(case: Case, model_file: ModelFile) -> None:
    bad = model_file(onnx.ModelProto())
    bad.path.write_bytes(b"not a model")
    bad = VerifiedFile(path=bad.path, sha256=hashlib.sha256(b"not a model").hexdigest())
    with (
        pytest.raises(EngineLoadError, match="models verify"),
        case.open(bad, EngineOptions()),
    ):
        pass


def test_a_model_that_changed_since_it_was_verified_is_not_loaded(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    model = model_file(make_model())
    model.path.write_bytes(make_model(opset=16).SerializeToString())
    with (
        pytest.raises(PackageIntegrityError, match="does not match"),
        case.open(model, EngineOptions()),
    ):
        pass


def test_a_failure_inside_the_back_end_arrives_as_an_engine_error(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    if case.is_on_gpu:
        pytest.skip("a GPU reads beyond the end of a table without a word")
    # The model looks up its input in a table of 3: nothing before the run can know that 7 comes.
    model = make_model(
        [
            helper.make_node("Cast", ["slabs"], ["places"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "places"], ["logits"]),
        ],
        input_shape=("n",),
    )
    model.graph.initializer.append(
        helper.make_tensor("table", TensorProto.FLOAT, [3], [0.0, 1.0, 2.0])
    )
    with (
        case.open(model_file(model), EngineOptions()) as engine,
        pytest.raises(EngineRunError, match="doctor") as caught,
    ):
        engine.run({"slabs": np.array([0.0, 7.0], dtype=np.float32)})
    assert caught.value.__cause__ is not None


def test_an_output_that_is_not_finite_is_never_returned(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    model = make_model([helper.make_node("Log", ["slabs"], ["logits"])], input_shape=("n",))
    with (
        case.open(model_file(model), EngineOptions()) as engine,
        pytest.raises(EngineOutputError, match="NaN or infinity"),
    ):
        engine.run({"slabs": np.array([-1.0], dtype=np.float32)})


def test_values_may_go_unchecked_by_choice(
    case: Case, model_file: ModelFile, make_model: MakeModel
) -> None:
    model = make_model([helper.make_node("Log", ["slabs"], ["logits"])], input_shape=("n",))
    with case.open(model_file(model), EngineOptions(check_values=False)) as engine:
        assert np.isnan(engine.run({"slabs": np.array([-1.0], dtype=np.float32)})["logits"]).all()


def test_an_engine_may_be_used_from_another_thread_than_the_one_that_loaded_it(
    engine: Engine,
) -> None:
    results: list[NDArray[Any]] = []
    thread = threading.Thread(
        target=lambda: results.append(engine.run({"slabs": slabs(0.75)})["logits"]), name="runner"
    )
    thread.start()
    thread.join(timeout=30)
    np.testing.assert_allclose(results[0], [2.0], atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_value_that_is_not_finite_is_found_anywhere(
    bad: float, dtype: type[np.floating[Any]]
) -> None:
    for index in (0, 499, 999):
        array = np.ones(1000, dtype=dtype)
        array[index] = bad
        assert not all_finite(array)
        assert not all_finite(np.ascontiguousarray(array.reshape(10, 100)).T)


def test_sound_values_are_finite_whatever_their_size_and_layout() -> None:
    large = np.full((100, 10), 3e38, dtype=np.float32)
    for array in (large, large.T, large[::3], -large, np.float32(1) + np.zeros((), np.float32)):
        assert all_finite(np.asarray(array))
    assert all_finite(np.array([-1, 1]))


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_a_senseless_number_of_threads_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="choose 1 to 64"):
        EngineOptions(intra_op_threads=threads)


class ReusingEngine(Engine):
    """A back end that answers with views of one buffer, or breaks its promise."""

    def __init__(self, answer: dict[str, NDArray[Any]] | None = None) -> None:
        super().__init__(check_values=True)
        self._buffer = np.zeros(4, dtype=np.float32)
        self._answer = answer
        self.freed = False

    def _load(self) -> EngineDescription:
        spec = TensorSpec(name="x", element_type=ElementType.FLOAT32, shape=(2,))
        return EngineDescription(
            metadata=EngineMetadata(
                backend=Backend.ONNXRUNTIME, provider="test", version="0", model_sha256="0" * 64
            ),
            inputs=(spec,),
            outputs=(TensorSpec(name="y", element_type=ElementType.FLOAT32, shape=(2,)),),
        )

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._answer is not None:
            return self._answer
        self._buffer[:2] = inputs["x"]
        return {"y": self._buffer[:2]}

    def _free(self) -> None:
        self.freed = True


def test_a_back_end_that_reuses_its_buffer_does_not_reach_into_earlier_outputs() -> None:
    with ReusingEngine() as engine:
        first = engine.run({"x": np.array([1, 2], dtype=np.float32)})["y"]
        engine.run({"x": np.array([3, 4], dtype=np.float32)})
    np.testing.assert_array_equal(first, [1, 2])


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"z": np.zeros(2, dtype=np.float32)},
        {"y": np.zeros(3, dtype=np.float32)},
        {"y": np.zeros(2, dtype=np.float64)},
    ],
)
def test_a_back_end_that_breaks_its_promise_is_caught(answer: dict[str, NDArray[Any]]) -> None:
    with ReusingEngine(answer) as engine, pytest.raises(EngineOutputError):
        engine.run({"x": np.zeros(2, dtype=np.float32)})


def test_a_back_end_that_fails_to_load_is_freed() -> None:
    class FailingEngine(ReusingEngine):
        def _load(self) -> EngineDescription:
            raise OSError("no such device")

    engine = FailingEngine()
    with pytest.raises(EngineLoadError, match="no such device"), engine:
        pass
    assert engine.freed
