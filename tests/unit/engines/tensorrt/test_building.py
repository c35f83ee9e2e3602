"""Plans are built by the real TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto
from simulators.small_models import Shipped, node, quantise, small_model

from engines.contract import Precision
from engines.errors import EngineBuildError, EngineMemoryError, ModelFileError
from engines.tensorrt.building import (
    RECIPE,
    BuildProgress,
    BuildRequest,
    _Build,
    _Watch,
    build_plan,
    planned_flags,
)
from engines.tensorrt.library import TensorRtLibrary
from engines.tensorrt.profiles import Profile, ShapeRange, profiles_of

RELU = [node("Relu", ["x"], ["y"])]
FIXED = small_model(RELU)
FREE = small_model(RELU, shape=("n", 1, 4, 4))
MIB = 1 << 20

MANY_STEPS = small_model(
    [
        node("Conv", ["x" if index == 0 else f"v{index}", "w"], [last], pads=[1] * 4)
        for index, last in enumerate([*(f"v{place}" for place in range(1, 40)), "y"])
    ],
    shape=("n", 64, 32, 32),
    weights={"w": np.full((64, 64, 3, 3), 0.001, dtype=np.float32)},
)


def from_one(most: tuple[int, ...], name: str = "x") -> BuildRequest:
    least = (1, *most[1:])
    ranges = (ShapeRange(name=name, least=least, best=most, most=most),)
    return BuildRequest(profiles=(Profile(ranges=ranges),))


def up_to_eight(package: Shipped, precision: Precision = Precision.FP32) -> BuildRequest:
    return BuildRequest(profiles=profiles_of(package.manifest.input, 8), precision=precision)


# ------------------------------------------------------------------------ what is built


@pytest.mark.parametrize("precision", Precision, ids=lambda each: each.value)
def test_a_shipped_model_of_any_batch_becomes_a_plan(
    rtx: TensorRtLibrary, shipped: Shipped, precision: Precision
) -> None:
    built = build_plan(rtx, shipped.model, up_to_eight(shipped, precision))
    assert len(built.plan) > 500_000
    assert built.fallen_back == ()


def test_fp16_makes_the_plan_smaller(rtx: TensorRtLibrary, shipped: Shipped) -> None:
    request = BuildRequest(profiles=up_to_eight(shipped).profiles[-1:])
    wide, narrow = (
        build_plan(rtx, shipped.model, replace(request, precision=precision)).plan
        for precision in (Precision.FP32, Precision.FP16)
    )
    assert len(narrow) < len(wide) - 100_000


def test_a_shipped_model_of_one_batch_becomes_a_plan(
    rtx: TensorRtLibrary, shipped: Shipped
) -> None:
    request = BuildRequest(profiles=profiles_of(shipped.manifest.input, 4, fixed=True))
    assert build_plan(rtx, shipped.model, request).plan


@pytest.mark.parametrize("precision", Precision, ids=lambda each: each.value)
def test_a_model_with_q_dq_nodes_becomes_a_plan(
    rtx: TensorRtLibrary, head_ct: Shipped, quantised: bytes, precision: Precision
) -> None:
    assert build_plan(rtx, quantised, up_to_eight(head_ct, precision)).plan


def test_q_dq_nodes_may_have_one_scale_for_a_whole_weight(
    rtx: TensorRtLibrary, head_ct: Shipped
) -> None:
    quantised = quantise(head_ct.model, head_ct.manifest.input.shape, per_channel=False)
    assert build_plan(rtx, quantised, up_to_eight(head_ct)).plan


def test_a_model_whose_shapes_are_fixed_needs_no_profile(rtx: TensorRtLibrary) -> None:
    assert build_plan(rtx, FIXED, BuildRequest()).plan


def test_a_plan_can_be_for_other_gpus(rtx: TensorRtLibrary) -> None:
    built = build_plan(rtx, FIXED, BuildRequest(targets=("SM86", "SM120")))
    assert built.flags[-2:] == ("target=SM86", "target=SM120")


def test_flags_are_known_before_anything_is_built(rtx: TensorRtLibrary) -> None:
    request = BuildRequest(optimization_level=1)
    assert planned_flags(rtx, request) == build_plan(rtx, FIXED, request).flags
    assert planned_flags(rtx, request) == (
        f"recipe={RECIPE}",
        "strongly_typed",
        "no_tf32",
        "optimization_level=1",
    )


def test_rtx_times_nothing_while_building_and_is_not_asked_to_keep_it(
    rtx: TensorRtLibrary,
) -> None:
    # Asking would warn, and warnings are errors here.
    assert build_plan(rtx, FIXED, BuildRequest(timing_cache=b"of before")).timing_cache == b""


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 nodes"),
        (b"no model at all", "not an ONNX file"),
        (small_model(RELU)[:-9], "not an ONNX file"),
        (small_model(RELU, opset=99), "opset 99"),
        (small_model(RELU, element_type=TensorProto.DOUBLE), "export it as float32"),
        (small_model([node("Wobble", ["x"], ["y"])]), "Wobble"),
        (small_model([node("Relu", ["x"], ["y"], domain="com.example")]), "com.example"),
    ],
    ids=["empty", "garbage", "truncated", "opset", "double", "unknown operator", "domain"],
)
def test_what_is_no_model_for_a_device_is_refused_before_the_vendor_sees_it(
    rtx: TensorRtLibrary, content: bytes, reason: str
) -> None:
    with pytest.raises(ModelFileError, match=reason):
        build_plan(rtx, content, BuildRequest())


def test_a_truncated_model_of_ours_is_refused(rtx: TensorRtLibrary, shipped: Shipped) -> None:
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        build_plan(rtx, shipped.model[:5000], up_to_eight(shipped))


def test_an_operator_that_the_vendor_has_not_is_named_with_its_node(rtx: TensorRtLibrary) -> None:
    determinant = small_model([node("Det", ["x"], ["y"])], output_shape=(1, 1))
    with pytest.raises(EngineBuildError, match=r"Det 'Det_y' .*UNSUPPORTED_NODE.*; choose"):
        build_plan(rtx, determinant, BuildRequest())


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"is_symmetric": False}, "[Zz]ero point"),
        ({"quantises_bias": True}, "Int32"),
    ],
    ids=["zero points", "bias"],
)
def test_q_dq_nodes_in_a_form_that_the_vendor_has_not_are_refused(
    rtx: TensorRtLibrary, head_ct: Shipped, form: dict[str, bool], reason: str
) -> None:
    quantised = quantise(head_ct.model, head_ct.manifest.input.shape, **form)
    with pytest.raises(EngineBuildError, match=reason):
        build_plan(rtx, quantised, up_to_eight(head_ct))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it gave no reason"),
        (b"no model at all", "Failed to parse the ONNX model"),
        (small_model(RELU)[:-9], "Failed to parse the ONNX model"),
        (small_model([node("Wobble", ["x"], ["y"])]), "Wobble 'Wobble_y' .*Plugin not found"),
        (
            small_model([node("Mystery", ["x"], ["y"], domain="com.example")]),
            "Mystery 'Mystery_y' .*Plugin not found",
        ),
        (small_model([node("NonZero", ["x"], ["y"])]), "UNSUPPORTED_NODE"),
    ],
    ids=["empty", "garbage", "truncated", "unknown operator", "domain", "sizes of pixels"],
)
def test_what_the_vendor_refuses_is_told_in_its_words(
    rtx: TensorRtLibrary, content: bytes, reason: str
) -> None:
    # Our own checks let none of these come so far.
    with rtx.router.listening() as messages:
        build = _Build(library=rtx, request=BuildRequest(), watch=_Watch(None), messages=messages)
        with pytest.raises(EngineBuildError, match=f"cannot read the model: .*{reason}.*; choose"):
            build.run(content)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (BuildRequest(), r"free axis, and no profile"),
        (BuildRequest(profiles=(Profile(ranges=()),)), r"is for \[\], but the model takes \['x'\]"),
        (from_one((8, 1, 4, 4), name="z"), r"is for \['z'\], but the model takes \['x'\]"),
        (from_one((8, 3, 4, 4)), r"to \(8, 3, 4, 4\), but the model takes \(-1, 1, 4, 4\)"),
        (from_one((8, 1, 4)), r"but the model takes \(-1, 1, 4, 4\)"),
    ],
    ids=["none", "empty", "name", "channels", "axes"],
)
def test_a_profile_that_is_missing_or_for_something_else_is_refused(
    rtx: TensorRtLibrary, request_: BuildRequest, reason: str
) -> None:
    with pytest.raises(EngineBuildError, match=reason):
        build_plan(rtx, FREE, request_)


def test_too_small_a_workspace_is_told_as_memory(rtx: TensorRtLibrary, head_ct: Shipped) -> None:
    request = replace(up_to_eight(head_ct), workspace_bytes=MIB)
    with pytest.raises(EngineMemoryError, match=r"workspace.*raise memory_mib"):
        build_plan(rtx, head_ct.model, request)


def test_a_gpu_that_the_library_does_not_know_is_refused(rtx: TensorRtLibrary) -> None:
    with pytest.raises(EngineBuildError, match="does not build for 'SM1'"):
        build_plan(rtx, FIXED, BuildRequest(targets=("SM1",)))


def test_a_gpu_that_cannot_run_the_model_is_told_in_the_vendors_words(
    rtx: TensorRtLibrary, head_ct: Shipped
) -> None:
    request = replace(up_to_eight(head_ct), targets=("SM75",))
    with pytest.raises(EngineBuildError, match=r"SM75.*choose another back end or precision"):
        build_plan(rtx, head_ct.model, request)


def test_a_dla_where_there_is_none_is_refused_and_not_built_for_the_gpu(
    rtx: TensorRtLibrary,
) -> None:
    with pytest.raises(EngineBuildError, match=r"DLA core 0 .* finds 0 here"):
        build_plan(rtx, FIXED, BuildRequest(dla_core=0, precision=Precision.FP16))


@pytest.mark.parametrize(
    "wrong",
    [{"workspace_bytes": 0}, {"optimization_level": 6}, {"dla_core": -1}],
    ids=lambda each: next(iter(each)),
)
def test_a_request_outside_its_bounds_cannot_be_made(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(BuildRequest(), **wrong)  # type: ignore[arg-type]  # all of them are numbers


def test_a_refusal_leaves_the_library_fit_for_the_next_build(rtx: TensorRtLibrary) -> None:
    with pytest.raises(EngineBuildError):
        build_plan(rtx, FREE, BuildRequest())
    assert build_plan(rtx, FREE, from_one((8, 1, 4, 4))).plan


_SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from engines.contract import Backend
from engines.errors import EngineMemoryError
from engines.package import InputRule
from engines.tensorrt.building import BuildRequest, build_plan
from engines.tensorrt.library import load_library
from engines.tensorrt.profiles import Profile, ShapeRange

library = load_library(Backend.TENSORRT_RTX)
model = Path(sys.argv[1]).read_bytes()
one, eight = (1, 9, 112, 112), (8, 9, 112, 112)
profile = Profile(ranges=(ShapeRange(name="slabs", least=one, best=eight, most=eight),))
request = BuildRequest(profiles=(profile,))
build_plan(library, model, request)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
outcomes = set()
for spare in range(1, 200, 8):
    limit = used + (spare << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        build_plan(library, model, request)
        outcomes.add("built")
        break
    except EngineMemoryError:
        outcomes.add("memory")
print(sorted(outcomes))
"""


def test_running_out_of_memory_while_building_is_told_as_memory(
    rtx: TensorRtLibrary, head_ct: Shipped
) -> None:
    del rtx
    answer = subprocess.run(
        [sys.executable, "-c", _SHORT_OF_MEMORY, str(head_ct.folder / "model.onnx")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() in {"['built', 'memory']", "['memory']"}


# ------------------------------------------------------------------ watching and stopping


def test_a_build_tells_how_far_it_is_on_the_thread_that_asked(rtx: TensorRtLibrary) -> None:
    seen: list[BuildProgress] = []
    threads = set()

    def watch(progress: BuildProgress) -> bool:
        seen.append(progress)
        threads.add(threading.get_ident())
        return True

    build_plan(rtx, FREE, from_one((8, 1, 4, 4)), watch)
    assert seen[0].parent is None
    assert seen[0].step == 0
    outermost = [each for each in seen if each.phase == seen[0].phase]
    assert outermost[-1].step == outermost[-1].steps > 1
    assert any(each.parent == seen[0].phase for each in seen)
    assert all(0 <= each.step <= each.steps for each in seen)
    assert threads == {threading.get_ident()}


def test_a_build_stops_when_its_watcher_says_so(rtx: TensorRtLibrary) -> None:
    asked = []

    def stop(progress: BuildProgress) -> bool:
        asked.append(progress)
        return len(asked) < 3

    with pytest.raises(EngineBuildError, match="stopped, as asked"):
        build_plan(rtx, MANY_STEPS, from_one((8, 64, 32, 32)), stop)
    assert len(asked) == 3


def test_a_build_can_be_stopped_from_another_thread(rtx: TensorRtLibrary) -> None:
    begun, stop = threading.Event(), threading.Event()

    def watch(_: BuildProgress) -> bool:
        begun.set()
        return not stop.wait(10)

    with ThreadPoolExecutor(1) as pool:
        build = pool.submit(build_plan, rtx, MANY_STEPS, from_one((8, 64, 32, 32)), watch)
        assert begun.wait(30)
        stop.set()
        with pytest.raises(EngineBuildError, match="stopped, as asked"):
            build.result(timeout=60)


@pytest.mark.parametrize("failure", [ZeroDivisionError("ours"), KeyboardInterrupt()])
def test_what_a_watcher_raises_stops_the_build_and_arrives(
    rtx: TensorRtLibrary, failure: BaseException
) -> None:
    def fail(_: BuildProgress) -> bool:
        raise failure

    with pytest.raises(type(failure)) as caught:
        build_plan(rtx, FIXED, BuildRequest(), fail)
    assert caught.value is failure
    assert build_plan(rtx, FIXED, BuildRequest()).plan


def test_other_threads_go_on_while_a_plan_is_built(rtx: TensorRtLibrary, head_ct: Shipped) -> None:
    done = threading.Event()
    ticks = 0
    with ThreadPoolExecutor(1) as pool:
        build = pool.submit(build_plan, rtx, head_ct.model, up_to_eight(head_ct))
        build.add_done_callback(lambda _: done.set())
        while not done.wait(0.001):
            ticks += 1
        assert build.result().plan
    assert ticks > 10


def test_builds_beside_each_other_each_get_their_own_plan_or_reason(
    rtx: TensorRtLibrary, shipped: Shipped
) -> None:
    good = up_to_eight(shipped)
    with ThreadPoolExecutor(4) as pool:
        builds = [pool.submit(build_plan, rtx, shipped.model, good) for _ in range(2)]
        short = pool.submit(build_plan, rtx, shipped.model, replace(good, workspace_bytes=MIB))
        unfit = pool.submit(build_plan, rtx, shipped.model, replace(good, targets=("SM75",)))
        assert all(build.result().plan for build in builds)
        with pytest.raises(EngineMemoryError, match="workspace"):
            short.result()
        with pytest.raises(EngineBuildError, match="SM75") as caught:
            unfit.result()
    assert not isinstance(caught.value, EngineMemoryError)
