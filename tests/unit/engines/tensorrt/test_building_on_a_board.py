"""What only a board shows: DLAs, timings that are kept, and failures that need a GPU.

The module is a stand-in; whatever a machine without a GPU can show is in ``test_building``.
"""

from __future__ import annotations

import pytest
from simulators.small_models import Shipped, node, small_model
from simulators.tensorrt_building import TIMED
from simulators.tensorrt_rig import TensorRtRig
from simulators.tensorrt_runtime import opened_plan
from simulators.tensorrt_words import BuilderFlag, DeviceType, MemoryPoolType, OnnxParserFlag

from engines.contract import Precision
from engines.errors import (
    EngineBuildError,
    EngineError,
    EngineMemoryError,
    EngineUnavailableError,
)
from engines.tensorrt.building import BuildRequest, build_plan, planned_flags
from engines.tensorrt.profiles import profiles_of

MODEL = small_model(
    [node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["b"]), node("Relu", ["b"], ["y"])]
)
ON_DLA = BuildRequest(dla_core=1, precision=Precision.FP16)


@pytest.fixture
def board(rig: TensorRtRig) -> TensorRtRig:
    """One with two DLAs."""
    rig.faults.dla_cores = 2
    return rig


# ---------------------------------------------------------------------------------- DLA


def test_layers_that_the_dla_does_not_take_are_listed(board: TensorRtRig) -> None:
    board.faults.dla_takes = frozenset({"Relu"})
    built = build_plan(board.library, MODEL, ON_DLA)
    # The first and the last are the casts between FP32 and FP16.
    assert "Neg_b" in built.fallen_back
    assert not {"Relu_a", "Relu_y"} & set(built.fallen_back)


def test_a_dla_is_asked_for_with_the_gpu_behind_it(board: TensorRtRig) -> None:
    built = build_plan(board.library, MODEL, ON_DLA)
    (config,) = board.world.configs
    assert config.default_device_type is DeviceType.DLA
    assert config.DLA_core == 1
    assert BuilderFlag.GPU_FALLBACK in config.flags
    assert board.world.parser_flags == {OnnxParserFlag.ADJUST_FOR_DLA}
    assert {"gpu_fallback", "adjust_for_dla"} <= set(built.flags)


def test_without_a_dla_nothing_is_said_of_it(board: TensorRtRig) -> None:
    built = build_plan(board.library, MODEL, BuildRequest())
    (config,) = board.world.configs
    assert config.default_device_type is DeviceType.GPU
    assert BuilderFlag.GPU_FALLBACK not in config.flags
    assert not board.world.parser_flags
    assert built.fallen_back == ()


@pytest.mark.parametrize("cores", [0, 1])
def test_a_dla_that_is_not_there_is_refused(board: TensorRtRig, cores: int) -> None:
    board.faults.dla_cores = cores
    with pytest.raises(EngineBuildError, match=rf"DLA core 1 .* finds {cores} here"):
        build_plan(board.library, MODEL, ON_DLA)


def test_a_dla_that_takes_no_layer_is_refused(board: TensorRtRig) -> None:
    board.faults.dla_takes = frozenset()
    with pytest.raises(EngineBuildError, match="takes no layer"):
        build_plan(board.library, MODEL, ON_DLA)


def test_a_dla_is_not_asked_to_compute_in_fp32(board: TensorRtRig) -> None:
    with pytest.raises(EngineBuildError, match="FP16 or INT8 only"):
        build_plan(board.library, MODEL, BuildRequest(dla_core=0))


def test_a_dla_takes_a_model_with_q_dq_nodes(
    board: TensorRtRig, head_ct: Shipped, quantised: bytes
) -> None:
    profiles = profiles_of(head_ct.manifest.input, 8, fixed=True)
    built = build_plan(board.library, quantised, BuildRequest(profiles=profiles, dla_core=0))
    assert opened_plan(built.plan)[1] == quantised


def test_a_dla_runs_one_shape_only(board: TensorRtRig, head_ct: Shipped) -> None:
    request = BuildRequest(
        profiles=profiles_of(head_ct.manifest.input, 8), precision=Precision.FP16, dla_core=0
    )
    with pytest.raises(EngineBuildError, match="fixed batch"):
        build_plan(board.library, head_ct.model, request)


# ------------------------------------------------------------------------------- timings


def test_what_one_build_timed_is_of_use_to_the_next(board: TensorRtRig) -> None:
    first = build_plan(board.library, MODEL, BuildRequest()).timing_cache
    assert first.startswith(TIMED)
    second = build_plan(board.library, MODEL, BuildRequest(timing_cache=first)).timing_cache
    assert second.startswith(first)
    assert len(second) > len(first)


def test_timings_of_another_device_are_left_out(board: TensorRtRig) -> None:
    request = BuildRequest(timing_cache=b"of another device")
    assert build_plan(board.library, MODEL, request).timing_cache.startswith(TIMED)


# ------------------------------------------------------------------------ what is asked for


def test_numbers_are_those_of_the_graph(board: TensorRtRig, head_ct: Shipped) -> None:
    request = BuildRequest(
        profiles=profiles_of(head_ct.manifest.input, 8), workspace_bytes=12345, optimization_level=5
    )
    build_plan(board.library, head_ct.model, request)
    (config,) = board.world.configs
    assert BuilderFlag.TF32 not in config.flags
    assert board.world.network_flags == [2]
    assert config.limits == {MemoryPoolType.WORKSPACE: 12345}
    assert config.builder_optimization_level == 5
    single, wide = config.profiles
    item, most = [1, 9, 112, 112], [8, 9, 112, 112]
    assert single.shapes == {"slabs": [item, item, item]}
    assert wide.shapes == {"slabs": [item, most, most]}


def test_other_gpus_cannot_be_built_for_here(board: TensorRtRig) -> None:
    with pytest.raises(EngineBuildError, match="for the GPU that is here only"):
        build_plan(board.library, MODEL, BuildRequest(targets=("SM86",)))
    assert "target=SM86" in planned_flags(board.library, BuildRequest(targets=("SM86",)))


# ---------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    "text",
    [
        "Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)",
        "[resizingAllocator.cpp::allocate::74] Error Code 1: Cuda Runtime (out of memory)",
        "Error Code 4: Internal Error (insufficient memory on requested devices)",
        "Error Code 10: try increasing the workspace size",
        "std::bad_alloc",
    ],
)
def test_what_vendors_say_when_memory_is_short_is_told_as_memory(
    board: TensorRtRig, text: str
) -> None:
    board.faults.no_plan = (text, "Error Code 1: noise (cudaError 35)")
    with pytest.raises(EngineMemoryError, match="raise memory_mib"):
        build_plan(board.library, MODEL, BuildRequest())


def test_the_first_thing_that_is_said_is_the_reason(board: TensorRtRig) -> None:
    board.faults.no_plan = ("Error Code 10: no implementation for node Relu_a", "out of memory")
    with pytest.raises(EngineBuildError, match="no implementation for node Relu_a") as caught:
        build_plan(board.library, MODEL, BuildRequest())
    assert not isinstance(caught.value, EngineMemoryError)


def test_a_driver_that_fails_sends_to_the_doctor(board: TensorRtRig) -> None:
    board.faults.no_plan = (
        "Error Code 1: Cuda Runtime (cudaError 719: unspecified launch failure)",
    )
    with pytest.raises(EngineBuildError, match=r"cudaError 719.*`edge-triage doctor`"):
        build_plan(board.library, MODEL, BuildRequest())


def test_a_very_long_reason_is_cut(board: TensorRtRig) -> None:
    board.faults.no_plan = ("Error Code 10: " + "x" * 5000,)
    with pytest.raises(EngineBuildError) as caught:
        build_plan(board.library, MODEL, BuildRequest())
    assert len(str(caught.value)) < 700


def test_a_library_without_strong_types_is_refused(board: TensorRtRig) -> None:
    board.faults.no_network = True
    with pytest.raises(EngineBuildError, match="makes no strongly typed network"):
        build_plan(board.library, MODEL, BuildRequest())


def test_a_profile_that_the_vendor_does_not_take_is_told(
    board: TensorRtRig, head_ct: Shipped
) -> None:
    board.faults.no_profile = True
    request = BuildRequest(profiles=profiles_of(head_ct.manifest.input, 8))
    with pytest.raises(EngineBuildError, match="refused a profile"):
        build_plan(board.library, head_ct.model, request)


def test_where_no_builder_can_be_made_the_engine_is_not_available(board: TensorRtRig) -> None:
    board.faults.no_builder = True
    with pytest.raises(EngineUnavailableError, match=r"error: 35.*`edge-triage doctor`"):
        build_plan(board.library, MODEL, BuildRequest())


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (MemoryError(), EngineMemoryError),
        (RuntimeError("Request for out of memory"), EngineMemoryError),
        (RuntimeError("of the binding"), EngineBuildError),
    ],
    ids=["memory", "its words", "other"],
)
def test_what_a_binding_raises_arrives_as_ours(
    board: TensorRtRig, raised: Exception, expected: type[EngineError]
) -> None:
    board.faults.build_raises = raised
    with pytest.raises(expected) as caught:
        build_plan(board.library, MODEL, BuildRequest())
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_the_vendors_outlives_a_build_not_even_in_its_error(
    board: TensorRtRig, *, fails: bool
) -> None:
    if fails:
        board.faults.build_raises = RuntimeError("of the binding")
        with pytest.raises(EngineBuildError) as caught:
            build_plan(board.library, MODEL, ON_DLA)
        assert caught.value.__traceback__ is not None
    else:
        build_plan(board.library, MODEL, ON_DLA)
    assert board.world.alive["builder"] == 0
    assert board.world.alive["parser"] == 0
