"""An engine that ceases to work ends the worker, and costs no study its analysis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray
from simulators.model_package import write_model_package
from simulators.worker_bench import WorkerBench

from edge_runtime.config.settings import EngineSettings
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.errors import EngineLostError
from edge_runtime.pipeline.models import ActiveModel, open_models
from edge_runtime.store.analyses import return_all_analyses
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineDescription, EngineOptions
from engines.errors import DeviceError

SLICES = 8


class FragileEngine(Engine):
    """An engine on hardware that fails when told to: on one input, or from then on."""

    def __init__(self, inner: Engine) -> None:
        super().__init__(check_values=True)
        self._inner = inner
        self.fails_once = False
        self.is_broken = False

    def _load(self) -> EngineDescription:
        self._inner.__enter__()
        return EngineDescription(
            metadata=self._inner.metadata, inputs=self._inner.inputs, outputs=self._inner.outputs
        )

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        fails, self.fails_once = self.fails_once or self.is_broken, False
        if fails:
            raise DeviceError("an illegal memory access was encountered")
        return self._inner.run(inputs)

    def _free(self) -> None:
        self._inner.__exit__(None, None, None)


def opens(backend: Backend, model: VerifiedFile, options: EngineOptions) -> Engine:
    return FragileEngine(open_engine(backend, model, options))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def bench(tmp_path: Path, stack: ExitStack) -> WorkerBench:
    made = WorkerBench(tmp_path, (opened(tmp_path, stack),))
    stack.callback(made.close)
    return made


def opened(folder: Path, stack: ExitStack) -> ActiveModel:
    """A model that a worker has just opened."""
    package = write_model_package(folder / f"package{id(object())}")
    (model,) = stack.enter_context(open_models([package], EngineSettings(), opens=opens))
    return model


def engine_of(bench: WorkerBench) -> FragileEngine:
    engine = bench.models[0].engine
    assert isinstance(engine, FragileEngine)
    return engine


def starts_again(bench: WorkerBench, model: ActiveModel) -> None:
    """As the worker's process does."""
    bench.models = (model,)
    return_all_analyses(bench.start_worker(owner="w2").connection)


def test_a_study_on_which_a_sound_engine_fails_is_failed_and_the_next_is_decided(
    bench: WorkerBench,
) -> None:
    bench.store_study(SLICES)
    engine_of(bench).fails_once = True
    bench.work()
    assert bench.analysis().state is AnalysisState.FAILED
    assert bench.analysis().reason is ReasonCode.ENGINE_FAILED
    bench.store_study(SLICES, study="1.2.4")
    bench.work()
    assert bench.analysis("1.2.4").state is AnalysisState.SUSPECTED


def test_a_package_whose_golden_outputs_are_gone_ends_nothing(
    bench: WorkerBench, tmp_path: Path
) -> None:
    (golden,) = tmp_path.glob("package*/golden/outputs.npz")
    golden.unlink()
    bench.store_study(SLICES)
    engine_of(bench).fails_once = True
    bench.work()
    assert bench.analysis().reason is ReasonCode.ENGINE_FAILED
    bench.store_study(SLICES, study="1.2.4")
    bench.work()
    assert bench.analysis("1.2.4").state is AnalysisState.SUSPECTED


def test_an_engine_that_does_not_work_any_more_ends_the_worker_and_the_next_one_decides(
    bench: WorkerBench, tmp_path: Path, stack: ExitStack
) -> None:
    bench.store_study(SLICES)
    bench.store_study(SLICES, study="1.2.4")
    engine_of(bench).is_broken = True
    with pytest.raises(EngineLostError, match=r"onnxruntime .*doctor"):
        bench.work()
    starts_again(bench, opened(tmp_path, stack))
    bench.work()
    for study in ("1.2.3", "1.2.4"):
        assert bench.analysis(study).state is AnalysisState.SUSPECTED


def test_a_study_that_breaks_every_engine_is_given_up(
    bench: WorkerBench, tmp_path: Path, stack: ExitStack
) -> None:
    bench.store_study(SLICES)
    for _ in range(bench.rules.max_attempts):
        engine_of(bench).is_broken = True
        with pytest.raises(EngineLostError):
            bench.work()
        starts_again(bench, opened(tmp_path, stack))
    bench.work()
    assert bench.analysis().state is AnalysisState.FAILED
    assert bench.analysis().reason is ReasonCode.REPEATED_CRASH
    bench.store_study(SLICES, study="1.2.4")
    bench.work()
    assert bench.analysis("1.2.4").state is AnalysisState.SUSPECTED
