"""The steps about engines, with those that a machine without a GPU has."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from simulators.gpu_check_rows import Found
from simulators.tensorrt_launchers import RoomyHost
from simulators.tensorrt_rig import TensorRtRig

from engines.backends import open_engine
from engines.checksums import MAX_FILE_BYTES
from engines.contract import Backend, EngineOptions, Precision
from engines.device.host import HostDevice
from engines.errors import EngineUnavailableError
from engines.loading import LoadedPackage
from tools.gpu_check import engines_step, graphs_step, int8_step, leaks_step, speed_step
from tools.gpu_check.bare_loop import built_plan, loop_on
from tools.gpu_check.counting import count
from tools.gpu_check.peers import Array, Opening, Peer, openings, peer_of
from tools.gpu_check.rows import Verdict
from tools.gpu_check.subjects import Subject, subjects

ON_PROCESSOR = Backend.ONNXRUNTIME


def subject_of(package: LoadedPackage, backend: Backend = ON_PROCESSOR) -> Subject:
    return Subject(package=package, backend=backend, precision=Precision.FP32)


def test_an_engine_that_agrees_passes(
    found: Found, radiographs: LoadedPackage, tmp_path: Path
) -> None:
    engines_step.check_subject(found.file, subject_of(radiographs), tmp_path)
    assert found.failed() == []
    assert sum(verdict is Verdict.OK for verdict in found.verdicts().values()) == 3


def test_an_engine_that_is_not_installed_is_not_here(
    found: Found, radiographs: LoadedPackage, tmp_path: Path
) -> None:
    try:
        open_engine(Backend.ONNXRUNTIME_CUDA, radiographs.model, EngineOptions())
    except EngineUnavailableError:
        engines_step.check_subject(
            found.file, subject_of(radiographs, Backend.ONNXRUNTIME_CUDA), tmp_path
        )
        assert list(found.verdicts().values()) == [Verdict.NOT_HERE]
    else:
        pytest.skip("ONNX Runtime's CUDA provider is here")


def test_every_package_meets_every_engine_that_a_gpu_runs() -> None:
    named = {(each.package.folder.name, each.backend, each.precision) for each in subjects()}
    assert len(named) == len(subjects()) == 14
    assert Backend.ONNXRUNTIME not in {each.backend for each in subjects()}


def test_a_quantised_model_is_compared_with_itself(
    found: Found, radiographs: LoadedPackage, tmp_path: Path
) -> None:
    quantised = int8_step.quantised_package(radiographs, tmp_path)
    assert quantised.model.sha256 != radiographs.model.sha256
    subject = subject_of(quantised)
    with open_engine(ON_PROCESSOR, radiographs.model, EngineOptions()) as other:
        int8_step.check_engine(found.file, "near", subject, other, tmp_path)
    # FP32 beside INT8: near, and not the same.
    assert found.failed() == []
    assert float(found.value("largest deviation of 'logit'")) > 0


def test_runs_and_loads_that_keep_nothing_pass(
    found: Found, radiographs: LoadedPackage, tmp_path: Path
) -> None:
    with HostDevice() as device:
        leaks_step.check_runs(found.file, subject_of(radiographs), device, tmp_path, runs=20)
        leaks_step.check_loads(found.file, subject_of(radiographs), device, tmp_path, loads=2)
    verdicts = found.verdicts()
    assert len(verdicts) == 4
    kept = [what for what in verdicts if what.endswith("keep no memory of the process")]
    assert [verdicts[what] for what in kept] == [Verdict.OK, Verdict.OK]


@pytest.fixture
def rig(tmp_path: Path) -> TensorRtRig:
    return TensorRtRig(tmp_path / "plans")


def host_of(rig: TensorRtRig) -> RoomyHost:
    if not rig.is_host:
        pytest.skip("the device of these tests is chosen to be another one")
    return RoomyHost(rig._host, 8 << 30)


def test_graphs_give_what_the_plan_gives_without(
    found: Found, rig: TensorRtRig, radiographs: LoadedPackage
) -> None:
    plan = built_plan(rig.library, radiographs, Precision.FP32)
    with host_of(rig) as device, graphs_step.sessions(rig.library, device, plan) as pair:
        graphs_step.check_sessions(found.file, "ours", radiographs, *pair, calls=3)
    assert found.failed() == []
    assert found.verdicts()["ours: calls became graphs"] is Verdict.OK
    assert rig.world.violations == []


def test_a_library_that_captures_nothing_is_found_out(
    found: Found, rig: TensorRtRig, radiographs: LoadedPackage
) -> None:
    rig.faults.no_capture = True
    plan = built_plan(rig.library, radiographs, Precision.FP32)
    with host_of(rig) as device, graphs_step.sessions(rig.library, device, plan) as pair:
        graphs_step.check_sessions(found.file, "ours", radiographs, *pair, calls=1)
    assert ["calls became graphs" in each for each in found.failed()] == [True]


def test_the_bare_loop_gives_what_the_model_gives(
    rig: TensorRtRig, radiographs: LoadedPackage
) -> None:
    given = speed_step.inputs_for(radiographs, 3)
    plan = built_plan(rig.library, radiographs, Precision.FP32)
    with (
        host_of(rig) as device,
        loop_on(device, rig.library, plan, given.shape) as loop,
        open_engine(ON_PROCESSOR, radiographs.model, EngineOptions()) as reference,
    ):
        loop.fill(given)
        loop.ask()
        found = loop.wait().copy()
        wanted = reference.run({radiographs.manifest.input.name: given})
    np.testing.assert_allclose(found, wanted[output_of(radiographs)], atol=1e-5)
    assert rig.world.violations == []


@dataclass(frozen=True)
class Room:
    """Where peers are opened."""

    package: LoadedPackage
    folder: Path
    found: Found

    def open(self, stack: ExitStack, *wanted: Opening) -> list[Peer]:
        given = speed_step.inputs_for(self.package, 2)
        opened = speed_step.Opened(
            package=self.package, given=given, stack=stack, folder=self.folder
        )
        return opened.open(self.found.file, wanted)


@pytest.fixture
def room(found: Found, radiographs: LoadedPackage, tmp_path: Path) -> Room:
    return Room(radiographs, tmp_path, found)


def on_processor(
    package: LoadedPackage, _shape: tuple[int, ...], stack: ExitStack, folder: Path
) -> Peer:
    options = subject_of(package).options(folder)
    engine = stack.enter_context(open_engine(ON_PROCESSOR, package.model, options))
    return peer_of(engine, package, "ours")


def of_another_mind(
    package: LoadedPackage, shape: tuple[int, ...], stack: ExitStack, folder: Path
) -> Peer:
    right = on_processor(package, shape, stack, folder)

    def run(array: Array) -> Array:
        return right.run(array) + 1.0

    return Peer(name="wrong", run=run)


def crashing(
    _package: LoadedPackage, _shape: tuple[int, ...], _stack: ExitStack, _folder: Path
) -> Peer:
    raise OSError("its library is broken")


def test_peers_are_timed_in_turns(room: Room, found: Found) -> None:
    with ExitStack() as stack:
        here = room.open(stack, Opening(name="ours", open=on_processor))
        given = speed_step.inputs_for(room.package, 2)
        speed_step.time_all(found.file, room.package, here, given, rounds=2, round_s=0.01)
    p50, p95, p99 = map(float, found.value("p50 / p95 / p99").removesuffix(" ms").split(" / "))
    assert 0 < p50 <= p95 <= p99
    assert found.value("throughput").endswith(" items/s")


def test_who_computes_something_else_is_no_peer(room: Room, found: Found) -> None:
    with ExitStack() as stack:
        here = room.open(
            stack,
            Opening(name="ours", open=on_processor),
            Opening(name="wrong", open=of_another_mind),
        )
    assert [peer.name for peer in here] == ["ours"]
    assert "computes something else" in found.failed()[0]


def test_a_peer_whose_library_is_broken_keeps_nobody_else_away(room: Room, found: Found) -> None:
    with ExitStack() as stack:
        here = room.open(
            stack, Opening(name="broken", open=crashing), Opening(name="ours", open=on_processor)
        )
    assert [peer.name for peer in here] == ["ours"]
    assert found.value("opening") == "OSError: its library is broken"
    assert found.failed() == []


def test_everybody_has_a_name_of_their_own() -> None:
    names = [opening.name for opening in openings()]
    assert len(set(names)) == len(names)


def small_model() -> bytes:
    """Two products: a convolution of 3 x 3 from 2 to 4 channels, and 4 x 5 weights."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("ReduceMean", ["c"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["m", "g", "b"], ["y"]),
    ]
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, np.ones(shape, np.float32).ravel())
        for name, shape in (("w", (4, 2, 3, 3)), ("g", (4, 5)), ("b", (5,)))
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    content: bytes = model.SerializeToString()
    return content


def test_operations_and_bytes_are_counted() -> None:
    work = count(small_model(), 3)
    assert work.operations == 3 * (2 * 4 * 8 * 8 * 2 * 9 + 2 * 4 * 5)
    weights = 4 * (4 * 2 * 9 + 4 * 5 + 5)
    assert work.least_bytes == weights + 4 * 3 * 2 * 8 * 8 + 4 * 3
    assert work.least_seconds(operations_per_s=work.operations, bytes_per_s=1e30) == 1.0
    assert work.least_seconds(operations_per_s=1e30, bytes_per_s=work.least_bytes) == 1.0


def test_pytorch_computes_what_the_model_computes(head_ct: LoadedPackage) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra `train` only")
    from tools.gpu_check.torch_model import as_torch  # noqa: PLC0415 - needs PyTorch

    given = speed_step.inputs_for(head_ct, 2)
    with open_engine(ON_PROCESSOR, head_ct.model, EngineOptions()) as reference:
        wanted = reference.run({head_ct.manifest.input.name: given})
    model = as_torch(head_ct.model.read(MAX_FILE_BYTES))
    with torch.inference_mode():
        found = model(torch.from_numpy(given.copy())).numpy()
    np.testing.assert_allclose(found, wanted[output_of(head_ct)], atol=1e-4)


def output_of(package: LoadedPackage) -> str:
    return package.manifest.outputs[0].name
