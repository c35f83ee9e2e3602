"""The device contract on real hardware; tests/unit/engines/device asks it of a pretended one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from engines.contract import CudaLibrary
from engines.device.contract import Device
from engines.device.driver import find_driver
from engines.device.opening import open_device
from engines.errors import (
    DeviceError,
    DeviceStateError,
    DeviceUnavailableError,
    OutOfDeviceMemoryError,
)
from tools.gpu_check.rows import RowFile, number

Open: TypeAlias = Callable[[], Device]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is done."""

    copy_bytes: int = 64 * 1024**2
    rounds: int = 10_000


FULL = Extent()

_ORDERED = 20
_MOST_LOST_BYTES = 4 * 1024**2
"""The driver hands out memory in pages of 2 MiB; others may use the GPU meanwhile."""
_SEED = 5


def check(rows: RowFile, _folder: Path, *, extent: Extent = FULL) -> None:
    """Hold each library to the contract.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    find_driver()
    for library in CudaLibrary:
        try:
            device = open_device([library])
        except DeviceUnavailableError as error:
            rows.not_here(library.value, str(error))
            continue
        check_device(rows, library.value, device, extent=extent)
        check_reopening(rows, library.value, partial(open_device, [library]))


def check_device(rows: RowFile, subject: str, device: Device, *, extent: Extent = FULL) -> None:
    """Everything that the contract promises of an open device, and that nothing is left open."""
    with device:
        _check_copies(rows, subject, device, extent.copy_bytes)
        _check_order(rows, subject, device, extent.copy_bytes)
        _check_graph(rows, subject, device)
        _check_refusals(rows, subject, device)
        _check_leaks(rows, subject, device, extent.rounds)
        left = sum(device.open_resources().values())
        rows.check(subject, "nothing is left open", left == 0, f"{left} open")


def check_reopening(rows: RowFile, subject: str, opened: Open) -> None:
    """A device that was left with things open gives them back; the next one works."""
    with opened() as first:
        free = first.memory().free_bytes
        first.allocate(FULL.copy_bytes)
        first.pinned((1024,), np.uint8)
        first.stream()
    with opened() as second:
        _tell_lost(rows, subject, "leaving gives back what was open", second, free)


def _check_copies(rows: RowFile, subject: str, device: Device, nbytes: int) -> None:
    content = np.random.default_rng(_SEED).integers(0, 256, nbytes, np.uint8)
    here, back = device.pinned(content.shape, np.uint8), device.pinned(content.shape, np.uint8)
    buffer, stream = device.allocate(nbytes), device.stream()
    begun, between, done = (device.event(timing=True) for _ in range(3))
    here.array[:] = content
    back.array[:] = 0
    # Once unseen: the first copy pays for what the driver sets up.
    device.copy_in(buffer, here.array, stream)
    stream.synchronize()
    begun.record(stream)
    device.copy_in(buffer, here.array, stream)
    between.record(stream)
    device.copy_out(back.array, buffer, stream)
    done.record(stream)
    done.synchronize()
    rows.check(subject, f"{nbytes:,} B come back unchanged", np.array_equal(back.array, content))
    for what, first, last in (
        ("to the GPU", begun, between),
        ("from the GPU", between, done),
    ):
        elapsed_ms = last.elapsed_ms(first)
        rows.check(subject, f"events measure a copy {what}", elapsed_ms > 0)
        if elapsed_ms > 0:
            speed = nbytes / elapsed_ms / 1e6
            rows.add(subject, f"pinned copy {what}", f"{number(speed)} GB/s")
    half = nbytes // 2
    device.copy_in(buffer, content[:half], stream, offset=half)
    device.copy_out(back.array, buffer, stream)
    stream.synchronize()
    rows.check(subject, "an offset is kept", np.array_equal(back.array[half:], content[:half]))
    for each in (done, between, begun, stream, buffer, back, here):
        each.free()


def _check_order(rows: RowFile, subject: str, device: Device, nbytes: int) -> None:
    """A second stream waits for an event of the first: what it reads is what was written."""
    here, back = device.pinned((nbytes,), np.uint8), device.pinned((nbytes,), np.uint8)
    buffer, first, second = device.allocate(nbytes), device.stream(), device.stream()
    written = device.event()
    is_right = True
    for value in range(1, _ORDERED + 1):
        here.array[:] = value
        device.copy_in(buffer, here.array, first)
        written.record(first)
        second.wait_for(written)
        device.copy_out(back.array, buffer, second)
        second.synchronize()
        is_right = is_right and bool((back.array == value).all())
    rows.check(subject, f"a stream waits for another's event, {_ORDERED} times", is_right)
    rows.check(subject, "an event that is over says so", written.is_done())
    for each in (written, second, first, buffer, back, here):
        each.free()


def _check_graph(rows: RowFile, subject: str, device: Device) -> None:
    here, back = device.pinned((1024,), np.float32), device.pinned((1024,), np.float32)
    buffer, stream = device.allocate(here.array.nbytes), device.stream()

    def work() -> None:
        device.copy_in(buffer, here.array, stream)
        device.copy_out(back.array, buffer, stream)

    here.array[:] = 1.0
    back.array[:] = 0.0
    graph = device.capture(stream, work)
    stream.synchronize()
    rows.check(subject, "capturing does nothing yet", not back.array.any())
    is_right = True
    for value in range(100):
        here.array[:] = value
        graph.launch(stream)
        stream.synchronize()
        is_right = is_right and bool((back.array == value).all())
    rows.check(subject, "a graph replays with new content, 100 times", is_right)
    for each in (graph, stream, buffer, back, here):
        each.free()


def _check_refusals(rows: RowFile, subject: str, device: Device) -> None:
    total = device.memory().total_bytes
    rows.check(
        subject,
        "too much memory is named as such",
        _raises(OutOfDeviceMemoryError, lambda: device.allocate(4 * total)),
    )
    buffer, stream = device.allocate(1024), device.stream()
    rows.check(
        subject,
        "a copy beyond the end is refused",
        _raises(DeviceStateError, lambda: device.copy_in(buffer, np.zeros(2048, np.uint8), stream)),
    )
    rows.check(
        subject,
        "what is no kernel is refused",
        _raises(DeviceError, lambda: device.load_module(b"no kernel at all" * 8)),
    )
    buffer.free()
    rows.check(subject, "freeing twice is refused", _raises(DeviceStateError, buffer.free))
    rows.check(
        subject, "use after freeing is refused", _raises(DeviceStateError, lambda: buffer.address)
    )
    stream.free()
    # After all of it the device still works.
    again = device.allocate(1024)
    again.free()


def _check_leaks(rows: RowFile, subject: str, device: Device, rounds: int) -> None:
    array = np.zeros(4096, np.uint8)
    before = device.memory().free_bytes
    started = time.perf_counter()
    for _ in range(rounds):
        stream, buffer, event = device.stream(), device.allocate(array.nbytes), device.event()
        device.copy_in(buffer, array, stream)
        event.record(stream)
        device.copy_out(array, buffer, stream)
        stream.synchronize()
        for each in (event, buffer, stream):
            each.free()
    took_us = (time.perf_counter() - started) / rounds * 1e6
    _tell_lost(rows, subject, f"{rounds:,} rounds lose no memory", device, before)
    rows.add(subject, "one round of stream, buffer, event, two copies", f"{number(took_us)} us")


def _tell_lost(rows: RowFile, subject: str, what: str, device: Device, before: int) -> None:
    lost = before - device.memory().free_bytes
    # Where the processor shares the memory, every process moves it.
    if device.info.is_integrated:
        rows.add(subject, what, f"{lost} B less are free")
    else:
        rows.check(subject, what, lost <= _MOST_LOST_BYTES, f"{lost} B lost")


def _raises(kind: type[Exception], action: Callable[[], object]) -> bool:
    with suppress(kind):
        action()
        return False
    return True
