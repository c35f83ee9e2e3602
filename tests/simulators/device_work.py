"""Work that tests ask of a device, whichever it is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.device.contract import Buffer, Device, Module, PinnedArray, Resource, Stream


def numbers(count: int, start: float = 0.0) -> NDArray[np.float32]:
    return np.arange(start, start + count, dtype=np.float32)


def empty(device: Device) -> bool:
    return not any(device.open_resources().values())


def one_of_each(device: Device, image: bytes) -> list[Resource]:
    stream = device.stream()
    return [
        stream,
        device.pinned((2, 3), np.float32),
        device.allocate(64),
        device.event(),
        device.load_module(image),
        device.capture(stream, lambda: None),
    ]


def round_trip(device: Device, buffer: Buffer, array: NDArray[Any]) -> None:
    stream = device.stream()
    back = np.zeros_like(array)
    device.copy_in(buffer, array, stream)
    device.copy_out(back, buffer, stream)
    stream.synchronize()
    np.testing.assert_array_equal(back, array)
    stream.free()


def captured_copies(
    device: Device,
) -> tuple[Callable[[], None], PinnedArray, PinnedArray, Stream]:
    stream, buffer = device.stream(), device.allocate(16)
    source, target = device.pinned((4,), np.float32), device.pinned((4,), np.float32)
    target.array[:] = 0

    def copies() -> None:
        device.copy_in(buffer, source.array, stream)
        device.copy_out(target.array, buffer, stream)

    return copies, source, target, stream


def launch_nothing(module: Module, stream: Stream) -> None:
    module.launch("no_arguments", stream, grid=(1, 1, 1), block=(1, 1, 1), arguments=[])


def check_usable(
    copies: Callable[[], None], source: PinnedArray, target: PinnedArray, stream: Stream
) -> None:
    source.array[:] = 4
    copies()
    stream.synchronize()
    np.testing.assert_array_equal(target.array, 4)


def in_thread(work: Callable[[], Any]) -> Any:
    """Do it in a thread that has ended when this returns."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(work).result(timeout=60)


def current_context() -> int:
    context = ctypes.c_void_p()
    assert ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(context)) == 0
    return context.value or 0
