"""Models run while studies arrive; what is decided is the same as if they had waited."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from simulators.model_package import write_model_package
from simulators.worker_bench import WorkerBench

from edge_runtime.config.settings import EngineSettings
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.pipeline.models import ActiveModel, open_models
from engines.contract import Engine, EngineDescription
from engines.runner import HostRunner

SLICES = 24
RADIUS = 1
PER_SLAB = 2
# Slices of 5 mm whose brightness differs, so that a wrong slab gives another probability.
HU = [(number * 37) % 100 for number in range(1, SLICES + 1)]
ORDERS: Mapping[str, Sequence[int]] = {
    "from the feet upwards": range(1, SLICES + 1),
    "from the head downwards": range(SLICES, 0, -1),
    "odd, then even": [*range(1, SLICES + 1, 2), *range(2, SLICES + 1, 2)],
    "any": random.Random(5).sample(range(1, SLICES + 1), SLICES),
}


class CountingEngine(Engine):
    """The engine that it stands before, and how many items each run had."""

    def __init__(self, inner: Engine, most_items: int | None = None) -> None:
        super().__init__(check_values=True)
        self._inner = inner
        self._most_items = most_items
        self.batches: list[int] = []

    def _load(self) -> EngineDescription:
        return EngineDescription(
            metadata=self._inner.metadata,
            inputs=self._inner.inputs,
            outputs=self._inner.outputs,
            most_items=self._most_items,
        )

    def _infer(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        self.batches.append(len(inputs["slices"]))
        return self._inner.run(inputs)

    def _free(self) -> None:
        pass


@pytest.fixture(params=[False, True], ids=["images", "slabs"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ActiveModel]:
    package = write_model_package(tmp_path / "package", by_slabs=request.param)
    with open_models([package], EngineSettings()) as (opened,):
        assert opened.engine is not None
        with CountingEngine(opened.engine) as counting:
            yield ActiveModel(package=opened.package, runner=HostRunner(opened.package, counting))


@pytest.fixture
def counting(model: ActiveModel) -> CountingEngine:
    assert isinstance(model.engine, CountingEngine)
    return model.engine


@pytest.fixture
def make_bench(tmp_path: Path, model: ActiveModel) -> Iterator[Callable[[str], WorkerBench]]:
    with contextlib.ExitStack() as stack:

        def make(name: str) -> WorkerBench:
            folder = tmp_path / name
            folder.mkdir()
            made = WorkerBench(folder, (model,))
            stack.callback(made.close)
            return made

        yield make


def probability_at_once(bench: WorkerBench) -> float:
    for number in range(1, SLICES + 1):
        bench.store(number, images=SLICES, hu=HU[number - 1])
    bench.work()
    found = bench.analysis().probability
    assert found is not None
    return found


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_a_study_that_came_slowly_is_decided_as_one_that_came_at_once(
    make_bench: Callable[[str], WorkerBench], counting: CountingEngine, order: Sequence[int]
) -> None:
    expected = probability_at_once(make_bench("at_once"))
    counting.batches.clear()
    bench = make_bench("slowly")
    for number in order:
        bench.store(number, images=SLICES, hu=HU[number - 1])
        bench.work(after_s=0.001)
    bench.work(after_s=0.05)  # a pause, too short for the study to be complete
    early = sum(counting.batches)
    bench.work()
    assert bench.analysis().state is AnalysisState.SUSPECTED
    assert bench.analysis().probability == pytest.approx(expected, abs=1e-6)
    assert early > 0


@pytest.mark.parametrize("order", [range(1, SLICES + 1), range(SLICES, 0, -1)])
def test_after_the_last_image_only_the_ends_of_the_series_are_left(
    make_bench: Callable[[str], WorkerBench],
    counting: CountingEngine,
    model: ActiveModel,
    order: Sequence[int],
) -> None:
    bench = make_bench("slowly")
    for number in order:
        bench.store(number, images=SLICES, hu=HU[number - 1])
        bench.work(after_s=0.001)
    bench.work(after_s=0.05)  # a pause, too short for the study to be complete
    early = sum(counting.batches)
    bench.work()
    left = sum(counting.batches) - early
    is_by_slabs = model.package.preprocess[-1].step == "neighbours"
    # Of slabs both ends with their neighbours; of images that stand for themselves none.
    assert left <= (2 * (RADIUS + 1) + 1 if is_by_slabs else 0)
    assert early + left <= (SLICES // PER_SLAB + 1 if is_by_slabs else SLICES)
    assert bench.pipeline.prepared.held_bytes == 0


def test_what_the_gate_would_refuse_is_not_run_early(
    make_bench: Callable[[str], WorkerBench], counting: CountingEngine, model: ActiveModel
) -> None:
    bench = make_bench("gap")
    if model.package.preprocess[-1].step != "neighbours":
        numbers = [1, 2, 3, 7, 8, 9]  # images are missing between
    else:
        numbers = [1, 2, 3, 4, 5, 9, 10, 11, 12, 13]
    for number in numbers:
        bench.store(number, images=SLICES, hu=50)
    bench.work(after_s=0.001)
    assert counting.batches == []


def test_an_engine_that_fails_early_fails_the_analysis_and_nothing_else(
    make_bench: Callable[[str], WorkerBench],
    counting: CountingEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(counting, "_infer", fail)
    bench = make_bench("failing")
    for number in range(1, SLICES + 1):
        bench.store(number, images=SLICES)
        bench.work(after_s=0.001)
    bench.work()
    assert bench.analysis().state is AnalysisState.FAILED


def test_items_of_two_studies_share_a_batch_where_an_engine_takes_many(
    tmp_path: Path, make_bench: Callable[[str], WorkerBench], model: ActiveModel
) -> None:
    expected = probability_at_once(make_bench("at_once"))
    assert isinstance(model.engine, CountingEngine)
    many = CountingEngine(model.engine, most_items=2 * SLICES)
    with many:
        folder = tmp_path / "two"
        folder.mkdir()
        bench = WorkerBench(
            folder, (ActiveModel(package=model.package, runner=HostRunner(model.package, many)),)
        )
        for number in range(1, SLICES + 1):
            for study in ("1.2.3", "1.2.4"):
                bench.store(number, study=study, images=SLICES + 1, hu=HU[number - 1])
        bench.work(after_s=0.001)
        alone = SLICES // PER_SLAB if model.package.preprocess[-1].step == "neighbours" else SLICES
        assert alone < max(many.batches) <= 2 * alone
        bench.work(after_s=60)
        for study in ("1.2.3", "1.2.4"):
            assert bench.analysis(study).probability == pytest.approx(expected, abs=1e-6)
        bench.close()


def test_the_more_urgent_model_runs_first(tmp_path: Path, model: ActiveModel) -> None:
    assert isinstance(model.engine, CountingEngine)
    order: list[str] = []

    class Named(CountingEngine):
        def __init__(self, inner: Engine, name: str) -> None:
            super().__init__(inner)
            self._name = name

        def _infer(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
            order.append(self._name)
            return super()._infer(inputs)

    with Named(model.engine, "shadow") as shadow, Named(model.engine, "model") as urgent:
        models = (
            ActiveModel(
                package=model.package, runner=HostRunner(model.package, shadow), is_shadow=True
            ),
            ActiveModel(package=model.package, runner=HostRunner(model.package, urgent)),
        )
        folder = tmp_path / "both"
        folder.mkdir()
        bench = WorkerBench(folder, models)
        for number in range(1, SLICES + 1):
            bench.store(number, images=SLICES + 1, hu=HU[number - 1])
        bench.work(after_s=0.001)
        bench.close()
    assert order == sorted(order), "model before shadow"
    assert set(order) == {"model", "shadow"}


def test_outputs_are_the_same_whether_items_ran_alone_or_together(
    counting: CountingEngine,
) -> None:
    values = np.random.default_rng(3).random((6, *counting.inputs[0].shape[1:]), dtype=np.float32)
    together = counting.run({"slices": values})["logits"]
    alone = [counting.run({"slices": values[place : place + 1]})["logits"] for place in range(6)]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-6)


def test_how_long_items_take_is_measured_while_they_run(tmp_path: Path, model: ActiveModel) -> None:
    class Slow(CountingEngine):
        def _infer(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
            bench.clock.advance(0.002 * len(inputs["slices"]))
            return super()._infer(inputs)

    assert model.engine is not None
    with Slow(model.engine) as slow:
        folder = tmp_path / "slow"
        folder.mkdir()
        runner = HostRunner(model.package, slow)
        bench = WorkerBench(folder, (ActiveModel(package=model.package, runner=runner),))
        for number in range(1, SLICES + 1):
            bench.store(number, images=SLICES + 1, hu=HU[number - 1])
        bench.work(after_s=0.001)
        assert bench.pipeline.early.time_of(model.key).of(10) == pytest.approx(20_000)
        bench.close()
