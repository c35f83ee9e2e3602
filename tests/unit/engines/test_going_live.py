"""Only a proven engine goes live. TensorRT is the stand-in; no GPU is to be had here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from simulators.tensorrt_rig import TensorRtRig

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.choosing import Obstacle, Preference
from engines.contract import Backend, Engine, EngineDescription, EngineOptions
from engines.errors import EngineStateError, EngineUnavailableError, NoEngineError, ParityError
from engines.going_live import PlanEngine, open_live
from engines.loading import load_package
from engines.plans.store import PlanStore, StoredPlan
from engines.proving import RANDOM_ITEMS
from engines.tensorrt.engine import TensorRtEngine
from engines.trials import Asker

REFERENCE = Preference(order=(Backend.ONNXRUNTIME,))
GPU_FIRST = Preference(order=(Backend.TENSORRT, Backend.ONNXRUNTIME), may_fall_back=True)


def test_the_reference_goes_live_with_the_report_of_its_golden_outputs(builder: Any) -> None:
    package = load_package(builder.write())
    with open_live(package, REFERENCE, EngineOptions()) as live:
        assert live.engine.metadata.backend is Backend.ONNXRUNTIME
        assert live.parity.holds
        assert live.passed_over == ()
        engine = live.engine
    with pytest.raises(EngineStateError):
        _ = engine.metadata


def test_an_engine_that_is_not_here_is_passed_over_aloud(builder: Any) -> None:
    package = load_package(builder.write())
    with open_live(package, GPU_FIRST, EngineOptions()) as live:
        assert live.engine.metadata.backend is Backend.ONNXRUNTIME
        (passed_over,) = live.passed_over
    assert passed_over.backend is Backend.TENSORRT
    assert passed_over.obstacle is Obstacle.NOT_AVAILABLE
    assert passed_over.detail


def test_without_leave_to_fall_back_there_is_no_engine(builder: Any) -> None:
    package = load_package(builder.write())
    strict = Preference(order=GPU_FIRST.order)
    with (
        pytest.raises(EngineUnavailableError, match="tensorrt"),
        open_live(package, strict, EngineOptions()),
    ):
        pytest.fail("went live")


def test_an_engine_that_does_not_reproduce_the_golden_outputs_never_goes_live(builder: Any) -> None:
    builder.golden_outputs = builder.golden_outputs + np.float32(0.5)
    package = load_package(builder.write())
    with pytest.raises(ParityError), open_live(package, REFERENCE, EngineOptions()):
        pytest.fail("went live")
    with pytest.raises(NoEngineError), open_live(package, GPU_FIRST, EngineOptions()):
        pytest.fail("went live")


# ---------------------------------------------------------------- engines that were built here


@pytest.fixture
def rig(tmp_path: Path) -> TensorRtRig:
    return TensorRtRig(tmp_path / "engines")


def opener(rig: TensorRtRig, spoil: float = 0.0) -> Callable[..., Engine]:
    """As ``open_engine``, with the stand-in for TensorRT; its numbers may be spoiled."""

    def opens(backend: Backend, model: VerifiedFile, options: EngineOptions) -> Engine:
        if backend is not Backend.TENSORRT:
            return open_engine(backend, model, options)
        return (SpoiledEngine if spoil else plain)(rig.open(model, options, most_items=32), spoil)

    return opens


def plain(engine: Engine, _spoil: float) -> Engine:
    return engine


class SpoiledEngine(Engine):
    """An engine whose answers to golden inputs are right, and to all others are off."""

    def __init__(self, inner: TensorRtEngine, spoil: float) -> None:
        super().__init__(check_values=True)
        self._inner = inner
        self._spoil = np.float32(spoil)

    @property
    def plan(self) -> StoredPlan:
        return self._inner.plan

    @property
    def plans(self) -> PlanStore:
        return self._inner.plans

    def _load(self) -> EngineDescription:
        self._inner.__enter__()
        return EngineDescription(
            metadata=self._inner.metadata, inputs=self._inner.inputs, outputs=self._inner.outputs
        )

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = self._inner.run(inputs)
        (given,) = inputs.values()
        is_golden = (
            float(np.ptp(given[0])) == 0.0
        )  # each golden item of the builder is of one value
        return {k: v if is_golden else v + self._spoil for k, v in outputs.items()}

    def _free(self) -> None:
        self._inner.__exit__(None, None, None)


def test_a_plan_is_built_proven_once_and_goes_live_again_on_its_proof(
    builder: Any, rig: TensorRtRig
) -> None:
    package = load_package(builder.write())
    with open_live(package, GPU_FIRST, EngineOptions(), opens=opener(rig)) as live:
        assert live.engine.metadata.backend is Backend.TENSORRT
        assert live.passed_over == ()
        assert isinstance(live.engine, PlanEngine)
        plan = live.engine.plan
    (entry,) = PlanStore(rig.folder).entries()
    assert entry.proof is not None
    assert entry.proof.passed
    assert entry.proof.random_items == RANDOM_ITEMS
    runs_with_proof = rig.world.operations.count("run")
    with open_live(package, GPU_FIRST, EngineOptions(), opens=opener(rig)) as live:
        assert isinstance(live.engine, PlanEngine)
        assert live.engine.plan.sha256 == plan.sha256, "it was not built again"
        assert live.engine.plan.proof == entry.proof
    assert rig.world.operations.count("run") - runs_with_proof < runs_with_proof
    assert rig.leftovers() == {}


def test_a_plan_that_decides_otherwise_never_goes_live_also_not_the_next_time(
    builder: Any, rig: TensorRtRig
) -> None:
    package = load_package(builder.write())
    for _ in range(2):
        with open_live(package, GPU_FIRST, EngineOptions(), opens=opener(rig, 0.5)) as live:
            assert live.engine.metadata.backend is Backend.ONNXRUNTIME
            (passed_over,) = live.passed_over
            assert passed_over.obstacle is Obstacle.NOT_REPRODUCED
            assert "random inputs" in passed_over.detail
        (entry,) = PlanStore(rig.folder).entries()
        assert entry.proof is not None
        assert not entry.proof.passed
    assert rig.leftovers() == {}


def test_a_proof_of_another_package_counts_for_nothing(builder: Any, rig: TensorRtRig) -> None:
    package = load_package(builder.write())
    with open_live(package, GPU_FIRST, EngineOptions(), opens=opener(rig)):
        pass
    (before,) = PlanStore(rig.folder).entries()
    builder.manifest = builder.manifest.replace('title = "BRIGHT"', 'title = "OTHER"')
    other = load_package(builder.write())
    with open_live(other, GPU_FIRST, EngineOptions(), opens=opener(rig)):
        pass
    (after,) = PlanStore(rig.folder).entries()
    assert before.proof is not None
    assert after.proof is not None
    assert (after.digest, after.proof.plan_sha256) == (before.digest, before.proof.plan_sha256)
    assert after.proof.package_digest == other.digest != package.digest


def test_a_look_that_changes_nothing_keeps_no_proof(builder: Any, rig: TensorRtRig) -> None:
    package = load_package(builder.write())
    with open_live(package, GPU_FIRST, EngineOptions(), opens=opener(rig), asker=Asker.EXAMINER):
        pass
    (entry,) = PlanStore(rig.folder).entries()
    assert entry.proof is None


def test_an_engine_that_runs_out_of_memory_is_passed_over_as_such(
    builder: Any, tmp_path: Path
) -> None:
    rig = TensorRtRig(tmp_path / "engines", host_bytes=1 << 20)
    package = load_package(builder.write())
    with open_live(package, GPU_FIRST, EngineOptions(), opens=opener(rig)) as live:
        (passed_over,) = live.passed_over
    assert passed_over.obstacle is Obstacle.OUT_OF_MEMORY
    assert rig.leftovers() == {}
