"""Every device captures, replays and launches as the contract says; see conftest.py."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import pytest
from simulators.device_work import (
    captured_copies,
    check_usable,
    empty,
    launch_nothing,
    numbers,
)

from engines.device.contract import Buffer, Device, Kind
from engines.errors import DeviceError, DeviceStateError

OpenDevice: TypeAlias = Callable[[], Device]

# ---------------------------------------------------------------------- graphs


def test_a_capture_does_nothing_and_its_graph_replays_with_new_data(device: Device) -> None:
    copies, source, target, stream = captured_copies(device)
    source.array[:] = 5
    graph = device.capture(stream, copies)
    stream.synchronize()
    np.testing.assert_array_equal(target.array, 0)
    for value in range(20):
        source.array[:] = value
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(target.array, value)


def test_a_graph_is_launched_in_any_stream_and_between_other_work(device: Device) -> None:
    copies, source, target, stream = captured_copies(device)
    graph = device.capture(stream, copies)
    other = device.stream()
    source.array[:] = 9
    graph.launch(other)
    back = device.allocate(16)
    device.copy_in(back, numbers(4), other)
    graph.launch(other)
    other.synchronize()
    np.testing.assert_array_equal(target.array, 9)


def test_only_pinned_arrays_are_copied_in_a_graph(device: Device) -> None:
    copies, source, target, stream = captured_copies(device)
    buffer = device.allocate(16)
    for copy in (
        lambda: device.copy_in(buffer, numbers(4), stream),
        lambda: device.copy_out(numbers(4), buffer, stream),
    ):
        with pytest.raises(DeviceStateError, match="pinned array, and this is none"):
            device.capture(stream, copy)
    device.capture(stream, lambda: device.copy_in(buffer, source.array[1:3], stream))
    check_usable(copies, source, target, stream)


def test_a_graph_whose_memory_or_module_is_freed_is_not_launched(
    device: Device, image: bytes
) -> None:
    copies, source, _, stream = captured_copies(device)
    graph = device.capture(stream, copies)
    source.free()
    with pytest.raises(DeviceStateError, match="pinned is freed"):
        graph.launch(stream)
    buffer = device.allocate(16)
    target = device.pinned((4,), np.float32)
    graph = device.capture(stream, lambda: device.copy_out(target.array, buffer, stream))
    buffer.free()
    with pytest.raises(DeviceStateError, match="buffer is freed"):
        graph.launch(stream)
    module = device.load_module(image)
    graph = device.capture(stream, lambda: launch_nothing(module, stream))
    module.free()
    with pytest.raises(DeviceStateError, match="module is freed"):
        graph.launch(stream)


def test_work_that_raises_leaves_its_error_and_a_usable_stream(device: Device) -> None:
    copies, source, target, stream = captured_copies(device)

    def half() -> None:
        copies()
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        device.capture(stream, half)
    check_usable(copies, source, target, stream)
    assert device.open_resources()[Kind.GRAPH] == 0


def test_captured_work_must_not_wait_take_or_free(device: Device, image: bytes) -> None:
    copies, source, target, stream = captured_copies(device)
    event, buffer = device.event(), device.allocate(4)
    event.record(stream)
    forbidden: list[Callable[[], object]] = [
        stream.synchronize,
        event.synchronize,
        buffer.free,
        device.stream,
        device.event,
        lambda: device.allocate(4),
        lambda: device.pinned((4,), np.float32),
        lambda: device.load_module(image),
        lambda: device.capture(stream, copies),
    ]

    def also(each: Callable[[], object]) -> None:
        copies()
        each()

    for each in forbidden:
        with pytest.raises(DeviceStateError, match="captured must not"):
            device.capture(stream, partial(also, each))
    check_usable(copies, source, target, stream)
    device.capture(stream, copies).launch(stream)
    stream.synchronize()
    buffer.free()


def test_a_capture_that_the_driver_breaks_off_is_an_error_and_leaves_a_usable_stream(
    device: Device,
) -> None:
    if device.info.library == "host":
        pytest.skip("the host has no driver")
    copies, source, target, stream = captured_copies(device)
    driver = ctypes.CDLL("libcuda.so.1")

    def as_another_library_might() -> None:
        copies()
        assert driver.cuStreamSynchronize(ctypes.c_void_p(stream.pointer))

    for _ in range(2):
        with pytest.raises(DeviceError, match="captur"):
            device.capture(stream, as_another_library_might)
        check_usable(copies, source, target, stream)
    assert device.open_resources()[Kind.GRAPH] == 0


def test_a_capture_goes_through_another_stream_and_back(device: Device) -> None:
    first, second = device.stream(), device.stream()
    buffers = [device.allocate(16) for _ in range(2)]
    source, target = device.pinned((4,), np.float32), device.pinned((8,), np.float32)
    begun, joined = device.event(), device.event()

    def fork_and_join() -> None:
        begun.record(first)
        second.wait_for(begun)
        device.copy_in(buffers[0], source.array, first)
        device.copy_in(buffers[1], source.array, second)
        joined.record(second)
        first.wait_for(joined)
        device.copy_out(target.array[:4], buffers[0], first)
        device.copy_out(target.array[4:], buffers[1], first)

    target.array[:] = 0
    graph = device.capture(first, fork_and_join)
    first.synchronize()
    second.synchronize()
    np.testing.assert_array_equal(target.array, 0)
    source.array[:] = 6
    graph.launch(second)
    second.synchronize()
    np.testing.assert_array_equal(target.array, 6)


def test_an_event_of_a_capture_stands_for_no_moment(device: Device) -> None:
    copies, _, _, stream = captured_copies(device)
    event = device.event()

    def work() -> None:
        copies()
        event.record(stream)

    device.capture(stream, work)
    for ask in (event.is_done, event.synchronize):
        with pytest.raises(DeviceError):
            ask()
    event.record(stream)
    event.synchronize()
    assert event.is_done()


def test_freeing_a_graph_before_and_after_its_launches(device: Device) -> None:
    copies, source, target, stream = captured_copies(device)
    device.capture(stream, copies).free()
    graph = device.capture(stream, copies)
    source.array[:] = 2
    graph.launch(stream)
    graph.free()
    stream.synchronize()
    np.testing.assert_array_equal(target.array, 2)


# --------------------------------------------------------------------- kernels


def test_a_kernel_computes_on_buffers(device: Device, image: bytes) -> None:
    stream, module = device.stream(), device.load_module(image)
    x, y = device.allocate(4000), device.allocate(4000)
    device.copy_in(x, numbers(1000), stream)
    device.copy_in(y, numbers(1000, 1.0), stream)
    arguments: list[Buffer | np.generic] = [y, x, np.float32(2.0), np.int32(1000)]
    module.launch("add_scaled", stream, grid=(8, 1, 1), block=(128, 1, 1), arguments=arguments)
    result = np.empty(1000, np.float32)
    device.copy_out(result, y, stream)
    stream.synchronize()
    np.testing.assert_array_equal(result, 3 * numbers(1000) + 1)


def test_arguments_of_every_width_arrive(device: Device, image: bytes) -> None:
    stream, module = device.stream(), device.load_module(image)
    out, result = device.allocate(64), np.empty(8, np.float64)
    arguments: list[Buffer | np.generic] = [
        out,
        np.int8(-7),
        np.uint16(65000),
        np.int32(-70000),
        np.int64(1 << 40),
        np.uint8(200),
        np.float32(0.5),
        np.float64(1e100),
        np.bool_(True),  # noqa: FBT003 - the type is what is tested
    ]
    module.launch("each_width", stream, grid=(1, 1, 1), block=(1, 1, 1), arguments=arguments)
    device.copy_out(result, out, stream)
    stream.synchronize()
    np.testing.assert_array_equal(result, [-7, 65000, -70000, 1 << 40, 200, 0.5, 1e100, 1])


def test_a_kernel_in_a_graph_reads_new_data(device: Device, image: bytes) -> None:
    stream, module = device.stream(), device.load_module(image)
    x, y = device.allocate(16), device.allocate(16)
    source, target = device.pinned((4,), np.float32), device.pinned((4,), np.float32)

    def work() -> None:
        device.copy_in(x, source.array, stream)
        device.copy_in(y, source.array, stream)
        arguments: list[Buffer | np.generic] = [y, x, np.float32(10.0), np.int32(4)]
        module.launch("add_scaled", stream, grid=(1, 1, 1), block=(4, 1, 1), arguments=arguments)
        device.copy_out(target.array, y, stream)

    graph = device.capture(stream, work)
    for value in (1.0, 2.0):
        source.array[:] = value
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(target.array, 11 * value)


def test_a_kernel_that_is_not_there_is_told(device: Device, image: bytes) -> None:
    module, stream = device.load_module(image), device.stream()
    with pytest.raises(DeviceError, match="subtract"):
        module.launch("subtract", stream, grid=(1, 1, 1), block=(1, 1, 1), arguments=[])
    launch_nothing(module, stream)
    stream.synchronize()


@pytest.mark.parametrize(
    ("grid", "block"),
    [
        ((1, 1, 1), (2048, 1, 1)),
        ((1, 1, 1), (0, 1, 1)),
        ((0, 1, 1), (1, 1, 1)),
        ((1, 1, 1), (33, 32, 1)),
    ],
)
def test_a_launch_that_no_device_does_is_refused_and_the_device_stays_usable(
    device: Device, image: bytes, grid: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    module, stream = device.load_module(image), device.stream()
    with pytest.raises(DeviceError):
        module.launch("no_arguments", stream, grid=grid, block=block, arguments=[])
    launch_nothing(module, stream)
    stream.synchronize()


@pytest.mark.parametrize(
    "junk", [b"junk", b"// no PTX at all", b"\x7fELF" + bytes(200)], ids=["text", "ptx", "elf"]
)
def test_an_image_that_is_none_is_refused(device: Device, junk: bytes) -> None:
    for _ in range(2):
        with pytest.raises(DeviceError):
            device.load_module(junk)
    assert empty(device)


def test_two_modules_of_one_image_live_apart(device: Device, image: bytes) -> None:
    first, second = device.load_module(image), device.load_module(image)
    stream = device.stream()
    first.free()
    launch_nothing(second, stream)
    stream.synchronize()
