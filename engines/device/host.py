"""The host as a device: real memory, the same rules, everything done when it is asked for.

What runs here without a GPU runs there by the same code. Nothing is asynchronous: a copy is done
when ``copy_in`` returns. A module is a shared object: a kernel ``NAME`` in it is
``extern "C" void NAME(const unsigned *grid, const unsigned *block, void **arguments)``, and
``extern "C" const unsigned NAME_sizes[]`` lists the bytes of each argument, ended by 0.
"""

from __future__ import annotations

import _ctypes
import ctypes
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from engines.device.contract import Array, Device, DeviceInfo, Handle, Kind, MemoryState
from engines.errors import DeviceError, OutOfDeviceMemoryError

_ALIGNMENT = 256
"""Bytes, as CUDA aligns what it allocates."""

_MAX_BLOCK = 1024
"""Threads, as on every NVIDIA device."""

_MAX_ARGUMENTS = 256
"""More than any kernel of ours takes: a list of sizes that has no end is none."""

_MAX_GRID = 0xFFFF_FFFF
"""What an ``unsigned`` holds."""


@dataclass(eq=False, slots=True)
class _HostCapture:
    """What the streams that take part in it were asked for."""

    work: list[Callable[[], None]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _HostStream:
    pointer: int
    capture: _HostCapture | None = None

    def ask(self, work: Callable[[], None]) -> None:
        if self.capture is None:
            work()
        else:
            self.capture.work.append(work)


@dataclass(eq=False, slots=True)
class _HostEvent:
    timing: bool
    moment_s: float | None = None
    capture: _HostCapture | None = None
    """In which it was recorded: then it orders streams, and stands for no moment."""


@dataclass(eq=False, slots=True)
class _HostMemory:
    array: Array
    nbytes: int


class HostDevice(Device):
    """The processor and its memory."""

    def __init__(self, *, total_bytes: int | None = None) -> None:
        """Nothing is taken yet.

        Args:
            total_bytes: That may be taken; what the machine has if None.
        """
        super().__init__()
        self._total_bytes = total_bytes or _physical_bytes()
        self._used_bytes = 0
        self._pointers = itertools.count(1)
        self._streams: dict[int, _HostStream] = {}

    def call(self, pointer: int, work: Callable[[], None]) -> None:
        """Ask a stream for a function of the host, as ``cuLaunchHostFunc`` does.

        Args:
            pointer: ``Stream.pointer``.
            work: Called once, or at every launch of the graph that is being captured.

        Raises:
            DeviceError: There is no such stream.
        """
        self.check_entered()
        if pointer not in self._streams:
            raise DeviceError(f"there is no stream {pointer} on this device")
        self._streams[pointer].ask(work)

    # ------------------------------------------------------------------ life

    def _enter(self) -> DeviceInfo:
        return DeviceInfo(
            library="host",
            library_version=np.__version__,
            name=platform.machine(),
            compute_capability=(0, 0),
            driver_version=0,
            total_bytes=self._total_bytes,
            is_integrated=True,
        )

    def _leave(self) -> None:
        self._streams.clear()

    def _push(self) -> None:
        """No thread needs anything of the host."""

    def _pop(self) -> None:
        """See ``_push``."""

    def _translated(self, error: Exception, doing: str) -> DeviceError:
        if isinstance(error, MemoryError):
            return OutOfDeviceMemoryError(f"{doing}: {error}; stop what else needs memory here")
        return DeviceError(f"{doing} failed on the host ({type(error).__name__}: {error})")

    def _memory(self) -> MemoryState:
        free = min(self._total_bytes - self._used_bytes, _available_bytes())
        return MemoryState(free_bytes=max(free, 0), total_bytes=self._total_bytes)

    # ------------------------------------------------------------- resources

    def _take(self, nbytes: int) -> _HostMemory:
        if self._used_bytes + nbytes > self._total_bytes:
            left = self._total_bytes - self._used_bytes
            raise MemoryError(f"{nbytes} bytes asked for, {left} left of {self._total_bytes}")
        raw = np.empty(nbytes + _ALIGNMENT, dtype=np.uint8)
        start = -_address(raw) % _ALIGNMENT
        self._used_bytes += nbytes
        return _HostMemory(raw[start : start + nbytes], nbytes)

    def _take_pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Handle, Array]:
        memory = self._take(prod(shape) * dtype.itemsize)
        return memory, memory.array.view(dtype).reshape(shape)

    def _allocate(self, nbytes: int) -> tuple[Handle, int]:
        memory = self._take(nbytes)
        return memory, _address(memory.array)

    def _open_stream(self) -> tuple[Handle, int]:
        stream = _HostStream(next(self._pointers))
        self._streams[stream.pointer] = stream
        return stream, stream.pointer

    def _open_event(self, *, timing: bool) -> Handle:
        return _HostEvent(timing)

    def _begin_capture(self, stream: Handle) -> None:
        stream.capture = _HostCapture()

    def _end_capture(self, stream: Handle) -> Handle:
        work = tuple(stream.capture.work)
        self._drop_capture(stream)
        return work

    def _drop_capture(self, stream: Handle) -> None:
        capture = stream.capture
        for each in self._streams.values():
            if each.capture is capture:
                each.capture = None

    def _load_module(self, image: bytes) -> Handle:
        # A name of its own: the loader takes a name that it knows for what it has loaded.
        with tempfile.NamedTemporaryFile(prefix="kernels-", suffix=".so") as file:
            file.write(image)
            file.flush()
            return ctypes.CDLL(file.name)

    def _free(self, kind: Kind, handle: Handle) -> None:
        if kind in (Kind.BUFFER, Kind.PINNED):
            self._used_bytes -= handle.nbytes
            handle.array = np.empty(0, dtype=np.uint8)
        elif kind is Kind.STREAM:
            del self._streams[handle.pointer]
        elif kind is Kind.MODULE:
            _ctypes.dlclose(handle._handle)  # noqa: SLF001 - ctypes offers no other way

    # ------------------------------------------------------------------ work

    def _copy_in(self, address: int, array: Array, stream: Handle) -> None:
        stream.ask(lambda: _move(address, _address(array), array.nbytes))

    def _copy_out(self, array: Array, address: int, stream: Handle) -> None:
        stream.ask(lambda: _move(_address(array), address, array.nbytes))

    def _synchronize_stream(self, stream: Handle) -> None:
        """Everything is done when it is asked for."""

    def _stream_wait(self, stream: Handle, event: Handle) -> None:
        if event.capture is not None and stream.capture is None:
            stream.capture = event.capture

    def _record_event(self, event: Handle, stream: Handle) -> None:
        event.capture = stream.capture
        event.moment_s = None if stream.capture is not None else time.perf_counter()

    def _event_is_done(self, event: Handle) -> bool:
        _check_outside(event)
        return True

    def _synchronize_event(self, event: Handle) -> None:
        _check_outside(event)

    def _elapsed_ms(self, first: Handle, second: Handle) -> float:
        for event in (first, second):
            if not event.timing or event.moment_s is None:
                raise DeviceError("both events must be opened with timing, and recorded")
        return float(second.moment_s - first.moment_s) * 1e3

    def _launch_graph(self, graph: Handle, stream: Handle) -> None:
        for work in graph:
            stream.ask(work)

    def _launch_kernel(
        self,
        module: Handle,
        name: str,
        stream: Handle,
        *,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
    ) -> None:
        sizes = _argument_sizes(module, name)
        given = [argument.nbytes for argument in arguments]
        if given != sizes:
            raise DeviceError(f"kernel {name} takes arguments of {sizes} bytes, not {given}")
        if not _is_launchable(grid, block):
            raise DeviceError(f"no device launches {name} with grid {grid} and block {block}")
        kernel = module[name]
        kernel.restype = None
        values = [np.array(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(_address(value) for value in values))
        dimensions = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)

        def run() -> None:
            _ = values  # to which the pointers point
            kernel(*dimensions, pointers)

        stream.ask(run)


def _check_outside(event: _HostEvent) -> None:
    if event.capture is not None:
        raise DeviceError("an event that was recorded in a capture stands for no moment")


def _is_launchable(grid: tuple[int, int, int], block: tuple[int, int, int]) -> bool:
    in_range = all(1 <= size <= _MAX_GRID for size in (*grid, *block))
    return in_range and prod(block) <= _MAX_BLOCK


def _argument_sizes(module: ctypes.CDLL, name: str) -> list[int]:
    try:
        _ = getattr(module, name)
        first = ctypes.addressof(ctypes.c_uint.in_dll(module, f"{name}_sizes"))
    except (AttributeError, ValueError) as error:
        raise DeviceError(f"there is no kernel {name} in the module") from error
    # One by one: what lies behind the end need not be readable.
    sizes = (
        ctypes.c_uint.from_address(first + index * ctypes.sizeof(ctypes.c_uint)).value
        for index in range(_MAX_ARGUMENTS)
    )
    return list(itertools.takewhile(bool, sizes))


def _address(array: Array) -> int:
    return int(array.ctypes.data)


def _move(target: int, source: int, nbytes: int) -> None:
    ctypes.memmove(target, source, nbytes)


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _available_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
