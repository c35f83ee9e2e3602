"""Kernels that TensorRT-RTX compiles when a plan runs are kept beside the plan, for what they help.

On the stand-in: no GPU was at hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from simulators.tensorrt_jit import MAGIC, IRuntimeCache
from simulators.tensorrt_rig import TensorRtRig
from simulators.tensorrt_words import ILogger
from simulators.tiny_model import tiny_model
from structlog.testing import capture_logs

from engines.checksums import VerifiedFile
from engines.contract import Backend
from engines.errors import EngineError, EngineMemoryError
from engines.plans.key import PlanKey
from engines.plans.store import PlanStore
from engines.tensorrt.interface import Feature
from engines.tensorrt.runtime_cache import KeptKernels

ModelFile = Callable[[onnx.ModelProto], VerifiedFile]
METHODS = (
    *("create_runtime_config", "create_runtime_cache", "set_runtime_cache"),
    *("serialize", "deserialize"),
)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[TensorRtRig]:
    made = TensorRtRig(tmp_path / "plans", Backend.TENSORRT_RTX)
    yield made
    assert made.leftovers() == {}


@pytest.fixture
def model(model_file: ModelFile) -> VerifiedFile:
    return model_file(tiny_model())


def start(rig: TensorRtRig, model: VerifiedFile) -> PlanKey:
    """Start the device once, and let it work."""
    with rig.open(model) as engine:
        given = {"pixels": np.full((2, 1, 16, 16), 0.5, dtype=np.float32)}
        np.testing.assert_allclose(engine.run(given)["logits"], [[0, 2], [0, 2]], atol=1e-5)
        return engine.plan_key


def kept(rig: TensorRtRig) -> list[Path]:
    return sorted(rig.folder.glob("*.runtime"))


def put_aside(rig: TensorRtRig) -> list[Path]:
    return sorted((rig.folder / "quarantine").glob("*.runtime"))


def compiled_at_a_start(rig: TensorRtRig, model: VerifiedFile) -> int:
    """How many kernels were compiled before the first run that is asked for."""
    before = rig.world.compiled
    with rig.open(model):
        return rig.world.compiled - before


def test_what_one_start_compiled_the_next_one_need_not(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    assert compiled_at_a_start(rig, model) > 0
    assert len(kept(rig)) == 1
    assert compiled_at_a_start(rig, model) == 0
    assert rig.world.builds == 1


def test_it_is_written_only_when_there_is_more_of_it(rig: TensorRtRig, model: VerifiedFile) -> None:
    key = start(rig, model)
    (first,) = kept(rig)
    content, written = first.read_bytes(), first.stat().st_ino
    start(rig, model)
    assert (first.stat().st_ino, first.read_bytes()) == (written, content)
    nothing = bytes(IRuntimeCache(rig.world, ILogger()).serialize())
    PlanStore(rig.folder).keep_runtime_cache(key, nothing)
    start(rig, model)
    assert PlanStore(rig.folder).runtime_cache(key) in content
    assert compiled_at_a_start(rig, model) == 0


def test_kernels_that_were_changed_on_disk_never_reach_the_library(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    start(rig, model)
    (path,) = kept(rig)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    rig.faults.no_kernels_taken = 1  # of what would reach it
    assert compiled_at_a_start(rig, model) > 0
    assert rig.faults.no_kernels_taken == 1
    rig.faults.no_kernels_taken = 0
    assert len(put_aside(rig)) == 1
    assert compiled_at_a_start(rig, model) == 0
    assert rig.world.builds == 1


def test_kernels_that_the_library_does_not_take_are_put_aside_and_compiled_again(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    start(rig, model)
    rig.faults.no_kernels_taken = 1
    with capture_logs() as logs:
        assert compiled_at_a_start(rig, model) > 0
    (told,) = [each for each in logs if each["event"] == "plans.quarantined"]
    assert "the driver is older" in told["reason"]
    assert len(put_aside(rig)) == 1
    assert compiled_at_a_start(rig, model) == 0
    assert rig.world.builds == 1


@pytest.mark.parametrize(("ended", "suspect"), [(1, "runtime"), (2, "plan"), (3, "plan")])
def test_what_a_process_ended_over_is_put_aside_the_kernels_first(
    rig: TensorRtRig, model: VerifiedFile, ended: int, suspect: str
) -> None:
    start(rig, model)
    before = rig.world.compiled
    with rig.open(model, processes_ended=ended):
        assert rig.world.compiled > before
    assert rig.world.builds == (1 if suspect == "runtime" else 2)
    quarantined = {path.suffix for path in (rig.folder / "quarantine").glob("*-*")}
    assert quarantined == {f".{suspect}", ".json"}
    assert compiled_at_a_start(rig, model) == 0


@pytest.mark.parametrize("ended", [1, 2])
def test_where_nothing_was_kept_there_is_nothing_to_put_aside(
    rig: TensorRtRig, model: VerifiedFile, ended: int
) -> None:
    with rig.open(model, processes_ended=ended):
        assert rig.world.builds == 1
    assert not (rig.folder / "quarantine").exists()


@pytest.mark.parametrize("content", [b"junk", MAGIC, MAGIC + b"x" * 64], ids=["junk", "cut", "bad"])
def test_kernels_that_are_none_are_put_aside_though_they_bear_the_seal(
    rig: TensorRtRig, model: VerifiedFile, content: bytes
) -> None:
    key = start(rig, model)
    PlanStore(rig.folder).keep_runtime_cache(key, content)
    assert compiled_at_a_start(rig, model) > 0
    assert len(put_aside(rig)) == 1
    assert compiled_at_a_start(rig, model) == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_library_that_fails_with_its_cache_runs_the_plan_all_the_same(
    rig: TensorRtRig, model: VerifiedFile, method: str
) -> None:
    start(rig, model)
    rig.faults.raising = method
    with capture_logs() as logs:
        start(rig, model)
    reasons = [each["reason"] for each in logs if each["log_level"] == "warning"]
    assert any(f"{method} failed" in reason for reason in reasons)
    rig.faults.raising = ""
    start(rig, model)
    assert compiled_at_a_start(rig, model) == 0


@pytest.mark.parametrize("fault", ["has_cache", "takes_cache"])
def test_a_library_that_gives_no_cache_runs_the_plan_all_the_same(
    rig: TensorRtRig, model: VerifiedFile, fault: str
) -> None:
    setattr(rig.faults, fault, False)
    with capture_logs() as logs:
        start(rig, model)
    assert "engine.runtime_cache_unused" in {each["event"] for each in logs}
    assert compiled_at_a_start(rig, model) > 0


def test_a_context_for_which_there_is_no_memory_leaves_nothing(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    rig.faults.no_context = 1
    with pytest.raises(EngineMemoryError) as caught, rig.open(model):
        pass
    assert rig.leftovers() == {}, "with the error still held"
    assert "OutOfMemory" in str(caught.value)
    start(rig, model)


def test_without_the_names_nothing_is_kept(rig: TensorRtRig, model: VerifiedFile) -> None:
    without = rig.library.features - {Feature.RUNTIME_CACHE}
    rig.library = dataclasses.replace(rig.library, features=without)
    start(rig, model)
    assert kept(rig) == []


def test_tensorrt_itself_keeps_none(tmp_path: Path, model: VerifiedFile) -> None:
    rig = TensorRtRig(tmp_path / "others", Backend.TENSORRT)
    start(rig, model)
    assert kept(rig) == []
    assert rig.leftovers() == {}


def test_kernels_go_with_their_plan(rig: TensorRtRig, model: VerifiedFile) -> None:
    start(rig, model)
    rig.faults.no_engine = 1
    assert compiled_at_a_start(rig, model) > 0
    assert rig.world.builds == 2


def test_kernels_with_which_the_plan_does_not_run_are_put_aside(
    rig: TensorRtRig, model: VerifiedFile
) -> None:
    start(rig, model)
    rig.faults.enqueues_before_failure = 0
    with pytest.raises(EngineError), rig.open(model):
        pass
    assert rig.leftovers() == {}, "with the error still held"
    rig.faults.enqueues_before_failure = None
    assert len(put_aside(rig)) == 1
    assert compiled_at_a_start(rig, model) > 0
    assert rig.world.builds == 1


def test_a_folder_that_cannot_be_used_stops_nothing(rig: TensorRtRig, model: VerifiedFile) -> None:
    key = start(rig, model)
    kernels = KeptKernels(PlanStore(rig.folder))
    assert kernels.find(key)
    rig.folder.chmod(0o777)
    with capture_logs() as logs:
        kernels.keep(key, b"more" * 10_000)
        kernels.put_aside(key, "it failed")
        assert kernels.find(key) == b""
    assert [each["event"] for each in logs] == [
        "engine.runtime_cache_not_kept",
        "engine.runtime_cache_not_put_aside",
        "engine.runtime_cache_not_read",
    ]
    assert all("chmod go-w" in each["reason"] for each in logs)
    rig.folder.chmod(0o700)
