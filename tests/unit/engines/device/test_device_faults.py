"""What a device makes of a driver that fails; only the fake libcuda does so when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from simulators.device_work import (
    captured_copies,
    check_usable,
    empty,
    launch_nothing,
    numbers,
    one_of_each,
    round_trip,
)
from simulators.fake_cuda.control import CudaCode, FakeDriver

from engines.device.contract import Device, Kind
from engines.errors import DeviceError, EngineMemoryError, OutOfDeviceMemoryError

OpenDevice: TypeAlias = Callable[[], Device]

_TAKING: dict[str, Callable[[Device, bytes], object]] = {
    "cuMemAlloc_v2": lambda device, _: device.allocate(64),
    "cuMemHostAlloc": lambda device, _: device.pinned((4,), np.float32),
    "cuStreamCreate": lambda device, _: device.stream(),
    "cuEventCreate": lambda device, _: device.event(),
    "cuGraphInstantiateWithFlags": lambda device, _: device.capture(device.stream(), lambda: None),
}


@pytest.mark.parametrize("function", _TAKING)
def test_out_of_memory_is_named_for_whatever_is_taken(
    faults: FakeDriver, device: Device, image: bytes, function: str
) -> None:
    # pycuda collects garbage and asks for device memory once more.
    twice = device.info.library == "pycuda" and function == "cuMemAlloc_v2"
    for _ in range(2 if twice else 1):
        faults.fail(function, CudaCode.OUT_OF_MEMORY)
    with pytest.raises(OutOfDeviceMemoryError, match="stop what else") as caught:
        _TAKING[function](device, image)
    assert isinstance(caught.value, EngineMemoryError)
    _TAKING[function](device, image)


def test_out_of_memory_while_kernels_are_loaded_is_named(
    faults: FakeDriver, device: Device, image: bytes
) -> None:
    loads = "cuModuleLoadDataEx" if device.info.library == "pycuda" else "cuModuleLoadData"
    faults.fail(loads, CudaCode.OUT_OF_MEMORY)
    with pytest.raises(OutOfDeviceMemoryError):
        device.load_module(image)
    launch_nothing(device.load_module(image), device.stream())


@pytest.mark.parametrize(
    "function",
    [
        "cuCtxPushCurrent_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuStreamSynchronize",
        "cuEventRecord",
        "cuEventSynchronize",
        "cuStreamWaitEvent",
        "cuEventQuery",
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphLaunch",
        "cuModuleGetFunction",
        "cuLaunchKernel",
        "cuMemGetInfo_v2",
    ],
)
def test_a_call_that_fails_once_is_an_error_that_leaves_the_device_usable(
    faults: FakeDriver, device: Device, image: bytes, function: str
) -> None:
    def everything() -> None:
        event, module = device.event(), device.load_module(image)
        copies, _, _, stream = captured_copies(device)
        copies()
        event.record(stream)
        stream.wait_for(event)
        event.is_done()
        event.synchronize()
        launch_nothing(module, stream)
        device.capture(stream, copies).launch(stream)
        device.memory()
        stream.synchronize()

    everything()
    before = faults.calls(function)
    faults.fail(function, CudaCode.UNKNOWN)
    with pytest.raises(DeviceError):
        everything()
    assert faults.calls(function) > before
    everything()


def test_a_capture_that_fails_at_any_step_leaves_a_usable_stream(
    faults: FakeDriver, device: Device
) -> None:
    copies, source, target, stream = captured_copies(device)
    for function in (
        "cuStreamBeginCapture_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
    ):
        faults.fail(function, CudaCode.UNKNOWN)
        with pytest.raises(DeviceError):
            device.capture(stream, copies)
        check_usable(copies, source, target, stream)
        device.capture(stream, copies).free()


@pytest.mark.parametrize(
    "function",
    [
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceTotalMem_v2",
        "cuDeviceGetAttribute",
        "cuDevicePrimaryCtxRetain",
    ],
)
def test_a_device_that_cannot_be_opened_holds_nothing(
    faults: FakeDriver, open_one: OpenDevice, function: str
) -> None:
    device = open_one()
    faults.fail(function, CudaCode.UNKNOWN)
    with pytest.raises(DeviceError, match="opening the device"):
        device.__enter__()
    assert faults.live() == {}
    with open_one() as another:
        round_trip(another, another.allocate(64), numbers(16))


def failing_kernel(open_one: OpenDevice, image: bytes, *, in_graph: bool) -> None:
    with open_one() as device:
        one_of_each(device, image)
        stream, module = device.stream(), device.load_module(image)
        if in_graph:
            graph = device.capture(stream, lambda: launch_nothing(module, stream))
            graph.launch(stream)
        else:
            launch_nothing(module, stream)
        with pytest.raises(DeviceError, match=r"LAUNCH_FAILED|launch fail|failed"):
            stream.synchronize()
        # Nothing works any more, and each refusal is an error of ours.
        for use in (device.stream, device.memory, lambda: device.allocate(16)):
            with pytest.raises(DeviceError):
                use()
        stream.synchronize()


@pytest.mark.parametrize("in_graph", [False, True])
def test_after_a_kernel_that_failed_the_device_is_left_and_a_new_one_works(
    faults: FakeDriver, open_one: OpenDevice, image: bytes, in_graph: bool
) -> None:
    for _ in range(2):
        faults.fail("kernel", CudaCode.LAUNCH_FAILED)
        with pytest.raises(DeviceError):
            failing_kernel(open_one, image, in_graph=in_graph)
        assert faults.live() == {}
        with open_one() as device:
            round_trip(device, device.allocate(64), numbers(16))


def test_out_of_memory_in_the_midst_of_a_block_gives_everything_back(
    faults: FakeDriver, open_one: OpenDevice, image: bytes
) -> None:
    def run_out() -> None:
        with open_one() as device:
            one_of_each(device, image)
            device.allocate(1 << 40)

    with pytest.raises(OutOfDeviceMemoryError):
        run_out()
    assert faults.live() == {}


def test_copies_are_done_when_somebody_waits_and_not_before(
    faults: FakeDriver, device: Device
) -> None:
    """What the fake is for: code that does not wait sees old data here."""
    copies, source, target, stream = captured_copies(device)
    source.array[:] = 8
    copies()
    assert target.array.sum() == 0
    stream.synchronize()
    assert target.array.sum() == 32
    assert faults.live() == {
        "device": 1,
        "pinned": 2,
        "stream": 1,
        "retained": 1,
    }


def test_memory_is_counted_and_given_back_at_once(faults: FakeDriver, device: Device) -> None:
    free = device.memory().free_bytes
    buffer = device.allocate(1 << 20)
    assert device.memory().free_bytes == free - (1 << 20)
    buffer.free()
    assert device.memory().free_bytes == free
    assert "device" not in faults.live()


def test_inferences_take_nothing_from_the_driver(faults: FakeDriver, device: Device) -> None:
    copies, _, _, stream = captured_copies(device)
    graph = device.capture(stream, copies)
    taking = [*_TAKING, "cuMemFree_v2", "cuMemFreeHost"]
    before = [faults.calls(function) for function in taking]
    launches = faults.calls("cuGraphLaunch")
    for _ in range(100):
        graph.launch(stream)
        stream.synchronize()
    assert [faults.calls(function) for function in taking] == before
    assert faults.calls("cuGraphLaunch") == launches + 100


def test_inside_current_the_context_is_pushed_once(faults: FakeDriver, device: Device) -> None:
    buffer = device.allocate(64)
    before = faults.calls("cuCtxPushCurrent_v2")
    with device.current():
        round_trip(device, buffer, numbers(16))
    assert faults.calls("cuCtxPushCurrent_v2") == before + 1


def test_a_graph_is_one_thing_to_the_driver(faults: FakeDriver, device: Device) -> None:
    copies, _, _, stream = captured_copies(device)
    graph = device.capture(stream, copies)
    assert faults.live()["graph_exec"] == 1
    assert "graph" not in faults.live()
    graph.free()
    assert "graph_exec" not in faults.live()
    assert device.open_resources()[Kind.GRAPH] == 0
    assert not empty(device)
