"""Every device leaks nothing, in many inferences and in many threads; see conftest.py."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeAlias

import numpy as np
import psutil
import pytest
from simulators.device_work import (
    captured_copies,
    current_context,
    in_thread,
    numbers,
    one_of_each,
    round_trip,
)

from engines.device.contract import Buffer, Device, Event, Kind, PinnedArray
from engines.errors import DeviceStateError

OpenDevice: TypeAlias = Callable[[], Device]

_INFERENCES = 10_000
_GROWTH_BYTES = 8 << 20
"""Of the process over all of them: less than 1 KiB each."""

# ----------------------------------------------------------------------- leaks


def test_ten_thousand_inferences_leak_nothing(device: Device, image: bytes) -> None:
    stream, module = device.stream(), device.load_module(image)
    x, y = device.allocate(4096), device.allocate(4096)
    source, target = device.pinned((1024,), np.float32), device.pinned((1024,), np.float32)
    arguments: list[Buffer | np.generic] = [y, x, np.float32(1.0), np.int32(1024)]

    def inference(value: int) -> None:
        source.array[:] = value
        device.copy_in(x, source.array, stream)
        device.copy_in(y, source.array, stream)
        module.launch("add_scaled", stream, grid=(8, 1, 1), block=(128, 1, 1), arguments=arguments)
        device.copy_out(target.array, y, stream)
        stream.synchronize()
        assert target.array[-1] == 2 * value

    check_growth(device, inference)


def test_ten_thousand_inferences_that_take_and_free_all_leak_nothing(
    device: Device, image: bytes
) -> None:
    module = device.load_module(image)

    def inference(value: int) -> None:
        stream, event = device.stream(), device.event()
        x, array = device.allocate(256), device.pinned((64,), np.float32)
        array.array[:] = value
        device.copy_in(x, array.array, stream)
        arguments: list[Buffer | np.generic] = [x, x, np.float32(1.0), np.int32(64)]
        module.launch("add_scaled", stream, grid=(1, 1, 1), block=(64, 1, 1), arguments=arguments)
        device.copy_out(array.array, x, stream)
        event.record(stream)
        event.synchronize()
        assert array.array[0] == 2 * value
        for each in (x, array, event, stream):
            each.free()

    check_growth(device, inference)


def test_ten_thousand_launches_of_graphs_leak_nothing(device: Device) -> None:
    copies, source, target, stream = captured_copies(device)
    kept = device.capture(stream, copies)

    def inference(value: int) -> None:
        source.array[:] = value
        graph = kept if value % 10 else device.capture(stream, copies)
        graph.launch(stream)
        stream.synchronize()
        assert target.array[0] == value
        if graph is not kept:
            graph.free()

    check_growth(device, inference)


def check_growth(device: Device, inference: Callable[[int], None]) -> None:
    process = psutil.Process(os.getpid())
    for value in range(_INFERENCES // 10):
        inference(value)
    gc.collect()
    opened, free = device.open_resources(), device.memory().free_bytes
    resident = process.memory_info().rss
    for value in range(_INFERENCES):
        inference(value)
    gc.collect()
    assert device.open_resources() == opened
    assert process.memory_info().rss - resident < _GROWTH_BYTES
    if not device.info.is_integrated:  # there every program takes from the same memory
        assert device.memory().free_bytes == free


# --------------------------------------------------------------------- threads


def test_threads_use_a_device_one_after_the_other(device: Device, image: bytes) -> None:
    buffer = device.allocate(64)
    for _ in range(5):
        in_thread(lambda: round_trip(device, buffer, numbers(16)))
        round_trip(device, buffer, numbers(16, 1.0))
    taken = in_thread(lambda: one_of_each(device, image))
    for resource in reversed(taken[1:]):
        in_thread(resource.free)
    taken[0].free()


def test_a_device_is_entered_used_and_left_in_three_threads(
    open_one: OpenDevice, image: bytes
) -> None:
    device = open_one()
    in_thread(device.__enter__)
    in_thread(lambda: one_of_each(device, image))
    in_thread(lambda: device.__exit__(None, None, None))
    with pytest.raises(DeviceStateError):
        _ = device.info


def test_a_second_thread_is_refused_while_one_is_inside(device: Device) -> None:
    inside, done = threading.Event(), threading.Event()

    def stay() -> None:
        with device.current():
            inside.set()
            assert done.wait(60)

    with ThreadPoolExecutor(max_workers=1) as pool:
        staying = pool.submit(stay)
        assert inside.wait(60)
        try:
            with pytest.raises(DeviceStateError, match="another thread"):
                device.allocate(16)
            with pytest.raises(DeviceStateError, match="another thread"), device.current():
                pass
        finally:
            done.set()
        staying.result(timeout=60)
    device.allocate(16)


def test_leaving_waits_for_the_thread_that_is_inside(open_one: OpenDevice) -> None:
    device = open_one()
    device.__enter__()
    inside, done = threading.Event(), threading.Event()

    def stay() -> None:
        with device.current():
            buffer = device.allocate(64)
            inside.set()
            assert done.wait(60)
            round_trip(device, buffer, numbers(16))

    with ThreadPoolExecutor(max_workers=2) as pool:
        staying = pool.submit(stay)
        assert inside.wait(60)
        leaving = pool.submit(device.__exit__, None, None, None)
        try:
            with pytest.raises(FutureTimeoutError):
                leaving.result(timeout=0.05)
        finally:
            done.set()
        staying.result(timeout=60)
        leaving.result(timeout=60)
    with pytest.raises(DeviceStateError):
        device.stream()


def test_a_context_is_current_only_inside_current(device: Device) -> None:
    if device.info.library == "host":
        pytest.skip("the host has no contexts")
    assert in_thread(current_context) == current_context() == 0
    device.allocate(16)
    assert current_context() == 0
    with device.current():
        context = current_context()
        assert context
        device.allocate(16)
        with device.current():
            assert current_context() == context
        assert current_context() == context
        assert in_thread(current_context) == 0
    assert current_context() == 0


def test_the_context_that_was_current_before_is_current_again(open_one: OpenDevice) -> None:
    with open_one() as outer, open_one() as inner:
        with outer.current():
            before = current_context() if outer.info.library != "host" else 0
            buffer = inner.allocate(64)
            round_trip(inner, buffer, numbers(16))
            with inner.current():
                outer.allocate(16)
            assert outer.info.library == "host" or current_context() == before
        buffer.free()


def test_each_thread_works_with_a_device_of_its_own(open_one: OpenDevice, image: bytes) -> None:
    together = threading.Barrier(3)

    def work(start: float) -> None:
        with open_one() as device:
            together.wait(60)
            buffer, (copies, source, target, stream) = device.allocate(64), captured_copies(device)
            graph = device.capture(stream, copies)
            for step in range(200):
                round_trip(device, buffer, numbers(16, start + step))
                source.array[:] = start + step
                graph.launch(stream)
                stream.synchronize()
                np.testing.assert_array_equal(target.array, start + step)
            one_of_each(device, image)

    with ThreadPoolExecutor(max_workers=3) as pool:
        for done in [pool.submit(work, 1000.0 * index) for index in range(3)]:
            done.result(timeout=120)


def test_references_that_end_in_another_thread_free_nothing(device: Device) -> None:
    box: list[Event | Buffer | PinnedArray] = [
        device.event(),
        device.allocate(16),
        device.pinned((4,), np.float32),
    ]
    in_thread(box.clear)
    gc.collect()
    opened = device.open_resources()
    assert (opened[Kind.EVENT], opened[Kind.BUFFER], opened[Kind.PINNED]) == (1, 1, 1)
