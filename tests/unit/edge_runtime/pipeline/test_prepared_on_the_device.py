"""The worker beside an engine of the device: images are prepared there, and decided as ever."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from simulators.model_package import write_model_package
from simulators.tensorrt_rig import TensorRtRig
from simulators.worker_bench import WorkerBench

from edge_runtime.config.settings import EngineBackend, EngineSettings
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.models import ActiveModel, open_models
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
from engines.kernel.runner import FusedRunner
from engines.loading import LoadedPackage

SLICES = 24
HU = [(number * 37) % 100 for number in range(1, SLICES + 1)]
PREFERENCE = EngineSettings(preference=(EngineBackend.TENSORRT,), fallback=False)

pytestmark = pytest.mark.skipif(
    shutil.which("c++") is None, reason="no C++ compiler here: the kernel cannot run on the host"
)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[TensorRtRig]:
    made = TensorRtRig(tmp_path / "plans")
    yield made
    assert made.leftovers() == {}


@pytest.fixture(params=[False, True], ids=["images", "slabs"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedPackage:
    return write_model_package(tmp_path / "package", by_slabs=request.param)


@pytest.fixture
def on_device(rig: TensorRtRig, package: LoadedPackage) -> Iterator[ActiveModel]:
    def opens(backend: Backend, model: VerifiedFile, options: EngineOptions) -> Engine:
        if backend is Backend.TENSORRT:
            return rig.open(model, options)
        return open_engine(backend, model, options)

    with open_models([package], PREFERENCE, folder=rig.folder, opens=opens) as (model,):
        assert isinstance(model.runner, FusedRunner)
        yield model


def probability(folder: Path, model: ActiveModel, *, slowly: bool) -> float:
    folder.mkdir()
    bench = WorkerBench(folder, (model,))
    with ExitStack() as stack:
        stack.callback(bench.close)
        for number in range(1, SLICES + 1):
            bench.store(number, images=SLICES, hu=HU[number - 1])
            if slowly:
                bench.work(after_s=0.001)
        bench.work(after_s=0.05)
        bench.work()
        assert bench.analysis().state is AnalysisState.SUSPECTED
        found = bench.analysis().probability
    assert found is not None
    return found


@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "slowly"])
def test_a_study_is_decided_as_by_the_processor(
    tmp_path: Path, package: LoadedPackage, on_device: ActiveModel, slowly: bool
) -> None:
    with open_models([package], EngineSettings()) as (by_processor,):
        expected = probability(tmp_path / "processor", by_processor, slowly=slowly)
    found = probability(tmp_path / "device", on_device, slowly=slowly)
    assert found == pytest.approx(expected, abs=1e-5)
    assert on_device.engine_name is not None
    assert on_device.engine_name.startswith("tensorrt ")


def test_memory_of_the_device_that_ends_is_its_fault_and_not_the_studys(
    tmp_path: Path, rig: TensorRtRig, on_device: ActiveModel
) -> None:
    folder = tmp_path / "device"
    folder.mkdir()
    bench = WorkerBench(folder, (on_device,))
    try:
        rig.refuse_memory(after=0)
        for number in range(1, SLICES + 1):
            bench.store(number, images=SLICES, hu=HU[number - 1])
        bench.work()
        assert bench.analysis().state is AnalysisState.FAILED
        assert bench.analysis().reason is ReasonCode.ENGINE_FAILED
    finally:
        rig.give_memory()
        bench.close()
