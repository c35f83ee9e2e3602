"""Every device keeps the contract; see conftest.py for how the device is chosen.

Nothing here knows which library it talks to, so that it also runs on a real GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from simulators.device_work import (
    empty,
    numbers,
    one_of_each,
    round_trip,
)

from engines.device.contract import Device, Kind
from engines.errors import DeviceError, DeviceStateError, EngineMemoryError, OutOfDeviceMemoryError

OpenDevice: TypeAlias = Callable[[], Device]

# ------------------------------------------------------------------------- life


def test_an_entered_device_says_what_it_is(device: Device) -> None:
    info = device.info
    assert info.library
    assert info.library_version
    assert info.name
    assert info.total_bytes > 0
    assert len(info.compute_capability) == 2
    assert info.library == "host" or info.driver_version >= 12000


def test_memory_is_free_and_total(device: Device) -> None:
    before = device.memory()
    assert 0 < before.free_bytes <= before.total_bytes
    assert before.total_bytes <= device.info.total_bytes


def test_nothing_works_before_and_after_the_block(open_one: OpenDevice) -> None:
    device = open_one()
    for use in (device.memory, device.stream, lambda: device.allocate(1), lambda: device.info):
        with pytest.raises(DeviceStateError, match="with"):
            use()
    with device:
        assert empty(device)
    for use in (device.memory, device.stream, lambda: device.allocate(1), lambda: device.info):
        with pytest.raises(DeviceStateError, match="with"):
            use()


def test_a_device_is_entered_once(open_one: OpenDevice) -> None:
    device = open_one()
    with device, pytest.raises(DeviceStateError, match="once"):
        device.__enter__()
    with pytest.raises(DeviceStateError, match="once"):
        device.__enter__()


def test_devices_follow_each_other_and_stand_beside_each_other(open_one: OpenDevice) -> None:
    for _ in range(3):
        with open_one() as first, open_one() as second:
            assert first.allocate(16).address != second.allocate(16).address
    with open_one() as outer:
        kept = outer.allocate(16)
        with open_one() as inner:
            inner.stream()
        outer.copy_in(kept, numbers(4), outer.stream())


def test_exit_gives_back_what_is_open(open_one: OpenDevice, image: bytes) -> None:
    with open_one() as device:
        opened = one_of_each(device, image)
        assert device.open_resources() == dict.fromkeys(Kind, 1)
    for resource in opened:
        with pytest.raises(DeviceStateError, match="with"):
            _ = resource.handle
        with pytest.raises(DeviceStateError, match="with"):
            resource.free()


def test_exit_lets_the_error_of_the_block_through(open_one: OpenDevice, image: bytes) -> None:
    class OursError(Exception):
        pass

    def fail() -> None:
        with open_one() as device:
            one_of_each(device, image)
            raise OursError

    with pytest.raises(OursError):
        fail()


# -------------------------------------------------------------------- resources


def test_each_kind_is_freed_once_and_not_used_afterwards(device: Device, image: bytes) -> None:
    for resource in reversed(one_of_each(device, image)):
        resource.free()
        with pytest.raises(DeviceStateError, match="freed"):
            resource.free()
        with pytest.raises(DeviceStateError, match="freed"):
            _ = resource.handle
    assert empty(device)


def test_what_is_freed_is_refused_by_whoever_takes_it(device: Device, image: bytes) -> None:
    stream, buffer, event = device.stream(), device.allocate(16), device.event()
    module = device.load_module(image)
    pinned = device.pinned((4,), np.float32)
    graph = device.capture(stream, lambda: None)
    other = device.stream()
    for resource in (stream, buffer, event, module, pinned, graph):
        resource.free()
    uses: list[Callable[[], object]] = [
        lambda: buffer.address,
        lambda: stream.pointer,
        lambda: pinned.array,
        lambda: device.copy_in(buffer, numbers(4), other),
        lambda: device.copy_out(numbers(4), buffer, other),
        lambda: device.copy_in(device.allocate(16), numbers(4), stream),
        stream.synchronize,
        lambda: stream.wait_for(device.event()),
        lambda: other.wait_for(event),
        lambda: event.record(other),
        event.is_done,
        event.synchronize,
        lambda: graph.launch(other),
        lambda: device.capture(stream, lambda: None),
        lambda: module.launch("no_arguments", other, grid=(1, 1, 1), block=(1, 1, 1), arguments=[]),
    ]
    for use in uses:
        with pytest.raises(DeviceStateError, match="freed"):
            use()


@pytest.mark.parametrize("nbytes", [0, -1])
def test_a_buffer_of_nothing_is_refused(device: Device, nbytes: int) -> None:
    with pytest.raises(DeviceStateError, match="at least 1 byte"):
        device.allocate(nbytes)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((0,), np.float32), ((2, -1), np.float32), ((2,), object), ((2,), "V0")]
)
def test_a_pinned_array_of_nothing_is_refused(
    device: Device, shape: tuple[int, ...], dtype: Any
) -> None:
    with pytest.raises(DeviceStateError, match="no pinned array"):
        device.pinned(shape, dtype)


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8", "float16", "int64"])
def test_a_pinned_array_has_the_wanted_shape_and_type(device: Device, dtype: str) -> None:
    array = device.pinned((3, 5, 7), dtype).array
    assert array.shape == (3, 5, 7)
    assert array.dtype == np.dtype(dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[:] = 1
    assert array.sum() == 105


def test_buffers_do_not_overlap_and_are_aligned(device: Device) -> None:
    buffers = sorted((device.allocate(100) for _ in range(8)), key=lambda buffer: buffer.address)
    for first, second in itertools.pairwise(buffers):
        assert first.address + first.nbytes <= second.address
    assert all(buffer.address % 256 == 0 for buffer in buffers)


def test_out_of_memory_has_its_name_and_leaves_the_device_usable(device: Device) -> None:
    kept = device.allocate(1 << 20)
    for _ in range(3):
        with pytest.raises(OutOfDeviceMemoryError) as caught:
            device.allocate(device.memory().total_bytes + (1 << 30))
        assert isinstance(caught.value, EngineMemoryError)
    assert device.open_resources()[Kind.BUFFER] == 1
    round_trip(device, kept, numbers(16))


def test_freeing_gives_the_memory_back(device: Device) -> None:
    nbytes = device.memory().free_bytes // 2 + (1 << 20)
    for _ in range(5):  # the second one would not fit beside the first
        device.allocate(nbytes).free()
    assert empty(device)


# ----------------------------------------------------------------------- copies


@pytest.mark.parametrize("count", [1, 3, 1000, 1 << 20])
def test_what_is_copied_in_is_copied_out(device: Device, count: int) -> None:
    round_trip(device, device.allocate(4 * count), numbers(count))


def test_copies_from_and_to_pinned_memory(device: Device) -> None:
    stream, buffer = device.stream(), device.allocate(64)
    source, target = device.pinned((4, 4), np.float32), device.pinned((16,), np.float32)
    source.array[:] = numbers(16).reshape(4, 4)
    device.copy_in(buffer, source.array, stream)
    device.copy_out(target.array, buffer, stream)
    stream.synchronize()
    np.testing.assert_array_equal(target.array, numbers(16))


def test_parts_of_a_buffer_are_copied_by_offset(device: Device) -> None:
    stream, buffer = device.stream(), device.allocate(16)
    device.copy_in(buffer, np.zeros(4, np.float32), stream)
    device.copy_in(buffer, numbers(2, 5.0), stream, offset=4)
    whole, part = np.empty(4, np.float32), np.empty(1, np.float32)
    device.copy_out(whole, buffer, stream)
    device.copy_out(part, buffer, stream, offset=8)
    stream.synchronize()
    np.testing.assert_array_equal(whole, [0, 5, 6, 0])
    np.testing.assert_array_equal(part, [6])


def test_arrays_that_are_changed_after_the_call_from_pageable_memory_were_read(
    device: Device,
) -> None:
    stream, buffer = device.stream(), device.allocate(16)
    array = numbers(4)
    device.copy_in(buffer, array, stream)
    array[:] = -1
    back = np.empty(4, np.float32)
    device.copy_out(back, buffer, stream)
    stream.synchronize()
    np.testing.assert_array_equal(back, numbers(4))


@pytest.mark.parametrize(
    ("offset", "count"), [(0, 5), (4, 4), (16, 1), (-4, 1), (1 << 40, 1)], ids=str
)
def test_a_copy_past_the_buffer_is_refused(device: Device, offset: int, count: int) -> None:
    stream, buffer = device.stream(), device.allocate(16)
    with pytest.raises(DeviceStateError, match="do not fit"):
        device.copy_in(buffer, numbers(count), stream, offset=offset)
    with pytest.raises(DeviceStateError, match="do not fit"):
        device.copy_out(numbers(count), buffer, stream, offset=offset)


def test_arrays_with_gaps_and_targets_that_are_read_only_are_refused(device: Device) -> None:
    stream, buffer = device.stream(), device.allocate(64)
    gaps = np.zeros((4, 4), np.float32)[:, ::2]
    with pytest.raises(DeviceStateError, match="contiguous"):
        device.copy_in(buffer, gaps, stream)
    with pytest.raises(DeviceStateError, match="contiguous"):
        device.copy_out(gaps, buffer, stream)
    locked = np.zeros(4, np.float32)
    locked.flags.writeable = False
    device.copy_in(buffer, locked, stream)
    with pytest.raises(DeviceStateError, match="only be read"):
        device.copy_out(locked, buffer, stream)


# ------------------------------------------------------------ streams and events


def test_a_stream_keeps_its_order(device: Device) -> None:
    stream, buffer = device.stream(), device.allocate(4)
    target = device.pinned((50,), np.int32)
    sources = [np.array([value], np.int32) for value in range(50)]
    for index, source in enumerate(sources):
        device.copy_in(buffer, source, stream)
        device.copy_out(target.array[index : index + 1], buffer, stream)
    stream.synchronize()
    np.testing.assert_array_equal(target.array, np.arange(50))


def test_an_event_comes_when_what_was_asked_before_it_is_done(device: Device) -> None:
    stream, buffer, event = device.stream(), device.allocate(16), device.event()
    target = device.pinned((4,), np.float32)
    device.copy_in(buffer, numbers(4), stream)
    device.copy_out(target.array, buffer, stream)
    event.record(stream)
    event.synchronize()
    assert event.is_done()
    np.testing.assert_array_equal(target.array, numbers(4))


def test_asking_an_event_again_and_again_sees_it_come(device: Device) -> None:
    stream, buffer, event = device.stream(), device.allocate(16), device.event()
    target = device.pinned((4,), np.float32)
    device.copy_in(buffer, numbers(4), stream)
    device.copy_out(target.array, buffer, stream)
    event.record(stream)
    while not event.is_done():
        pass
    np.testing.assert_array_equal(target.array, numbers(4))


def test_a_stream_waits_for_an_event_of_another(device: Device) -> None:
    first, second = device.stream(), device.stream()
    buffer, event = device.allocate(16), device.event()
    target = device.pinned((4,), np.float32)
    device.copy_in(buffer, numbers(4, 7.0), first)
    event.record(first)
    second.wait_for(event)
    device.copy_out(target.array, buffer, second)
    second.synchronize()
    np.testing.assert_array_equal(target.array, numbers(4, 7.0))


def test_time_between_events(device: Device) -> None:
    stream, buffer = device.stream(), device.allocate(1 << 20)
    before, after = device.event(timing=True), device.event(timing=True)
    before.record(stream)
    device.copy_in(buffer, np.zeros(1 << 20, np.uint8), stream)
    after.record(stream)
    after.synchronize()
    assert 0 <= after.elapsed_ms(before) < 60_000
    assert before.elapsed_ms(before) == 0


def test_events_without_timing_or_moment_have_no_time_between_them(device: Device) -> None:
    stream, plain, never = device.stream(), device.event(), device.event(timing=True)
    plain.record(stream)
    plain.synchronize()
    for first, second in ((plain, plain), (never, never), (plain, never)):
        with pytest.raises(DeviceError):
            first.elapsed_ms(second)
    assert never.is_done()
