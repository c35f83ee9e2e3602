"""What every device promises, whichever library talks to its driver.

* Nothing is taken before ``with``; everything is given back after it, whatever is still open.
* Each resource is freed once; freeing it twice, or using it afterwards, is an error of ours that is
  told before a driver sees it.
* Copies and launches are ordered within a stream and nowhere else; ``Stream.synchronize`` waits.
* Whatever a library raises arrives as a ``DeviceError``; running out of memory has its own.
* Any thread may use a device, one at a time: a second one is refused, but leaving waits. No thread
  is left with something of it: the driver's context is current only while a method runs, or inside
  ``current``.

A new library is a subclass with private methods that each do one thing;
``tests/unit/engines/device/test_device_contract.py`` holds every one of them to the list above.
"""

from __future__ import annotations

import threading
from abc import ABC
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engines.device.library import Array, DeviceInfo, DeviceLibrary, Handle, Kind, MemoryState
from engines.device.resources import (
    Buffer,
    Event,
    Graph,
    Module,
    PinnedArray,
    Resource,
    Stream,
)
from engines.errors import DeviceError, DeviceStateError, ModelEngineError

__all__ = [
    "Array",
    "Buffer",
    "Device",
    "DeviceInfo",
    "Event",
    "Graph",
    "Handle",
    "Kind",
    "MemoryState",
    "Module",
    "PinnedArray",
    "Resource",
    "Stream",
]

Held = TypeVar("Held", bound=Resource)
Opened = TypeVar("Opened", bound="Device")


class _Thread(threading.local):
    """What the driver's stack of contexts holds in each thread: two devices may be nested."""

    innermost: Device | None = None


_THREAD = _Thread()


class _Call:
    """A call of the library: by one thread, in the device's context, with errors of ours.

    A class, for it is around every copy and launch: a generator takes twice as long.
    """

    __slots__ = ("_before", "_device", "_doing")

    def __init__(self, device: Device, doing: str) -> None:
        self._device = device
        self._doing = doing

    def __enter__(self) -> None:
        self._before = self._device.begin_call()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # The libraries' exceptions share no base class.
            if isinstance(error, Exception) and not isinstance(error, ModelEngineError):
                raise self._device.translated(error, self._doing) from error
        finally:
            self._device.end_call(self._before)


class Device(DeviceLibrary, ABC):
    """One device, between ``__enter__`` and ``__exit__``."""

    def __init__(self) -> None:
        self._info: DeviceInfo | None = None
        self._open: dict[Resource, None] = {}
        self._used = False
        self._turn = threading.RLock()
        self._captured: list[Resource] | None = None

    # ------------------------------------------------------------------ life

    def __enter__(self: Opened) -> Opened:  # noqa: PYI019 - typing has Self from Python 3.11 on
        if self._used:
            raise DeviceStateError("a device is entered once; open a new one")
        self._used = True
        with self._translating("opening the device"):
            self._info = self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.check_entered()
        failures: list[ModelEngineError] = []
        with self._turn:  # another thread may be in the midst of a call: that one ends first
            try:
                # Youngest first: a graph before what it copies between.
                for resource in reversed(tuple(self._open)):
                    failures += self._freed(resource)
            finally:
                self._open.clear()
                self._info = None
                with self._translating("closing the device"):
                    self._leave()
        # After a failed launch the driver refuses everything: the first error is the cause.
        if failures and error is None:
            raise failures[0]

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device's context current in this thread, and take it back afterwards.

        For a library that expects that of its caller (TensorRT), and around many calls of this
        module, which then need not do it one by one. A generator must not yield inside it.

        Raises:
            DeviceStateError: Outside ``with``, or another thread is using the device.
        """
        self.check_entered()
        before = self.begin_call()
        try:
            yield
        finally:
            self.end_call(before)

    def check_entered(self) -> DeviceInfo:
        """Return what the device is.

        Raises:
            DeviceStateError: Outside ``with``.
        """
        if self._info is None:
            raise DeviceStateError("a device works only inside its `with` block")
        return self._info

    @property
    def info(self) -> DeviceInfo:
        """Which device this is."""
        return self.check_entered()

    def open_resources(self) -> Mapping[Kind, int]:
        """How many of each kind are open; nothing is left out, so that tests can count leaks."""
        counts = Counter(resource.kind for resource in self._open)
        return {kind: counts[kind] for kind in Kind}

    def memory(self) -> MemoryState:
        """Free and total memory now.

        Raises:
            DeviceError: The driver failed.
        """
        self.check_entered()
        with self._told("asking for free memory"):
            return self._memory()

    # ------------------------------------------------------------- resources

    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> PinnedArray:
        """Take host memory for copies; its content is not defined.

        Raises:
            OutOfDeviceMemoryError: There is not so much.
            DeviceStateError: The array would have no bytes, or hold objects.
        """
        self._check_takable()
        wanted = np.dtype(dtype)
        if wanted.hasobject or min(shape, default=1) < 1 or not wanted.itemsize:
            raise DeviceStateError(f"no pinned array of {wanted} has shape {tuple(shape)}")
        with self._told("taking pinned memory"):
            handle, array = self._take_pinned(tuple(shape), wanted)
        return self._keep(PinnedArray(self, handle, array))

    def allocate(self, nbytes: int) -> Buffer:
        """Take memory of the device; its content is not defined.

        Raises:
            OutOfDeviceMemoryError: There is not so much.
            DeviceStateError: ``nbytes`` is less than 1.
        """
        self._check_takable()
        if nbytes < 1:
            raise DeviceStateError(f"a buffer has at least 1 byte, not {nbytes}")
        with self._told(f"allocating {nbytes} bytes"):
            handle, address = self._allocate(nbytes)
        return self._keep(Buffer(self, handle, address, nbytes))

    def stream(self) -> Stream:
        """Open a stream that waits for no other one."""
        self._check_takable()
        with self._told("opening a stream"):
            handle, pointer = self._open_stream()
        return self._keep(Stream(self, handle, pointer))

    def event(self, *, timing: bool = False) -> Event:
        """Open an event; one that measures time costs a little more."""
        self._check_takable()
        with self._told("opening an event"):
            handle = self._open_event(timing=timing)
        return self._keep(Event(self, handle))

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Capture what ``work`` asks of the stream, without doing it.

        Args:
            stream: To which ``work`` adds copies and launches; all memory must have been taken
                before.
            work: Called once. It must not wait for anything, nor take or free anything, and copies
                only from and to pinned arrays, which each launch reads and writes again.

        Raises:
            DeviceStateError: ``work`` did one of these things of this device.
            DeviceError: Something in it cannot be captured. After any error, also one that
                ``work`` raises, the stream can be used again.
        """
        self._check_takable()
        with self.current():
            with self._told("capturing a graph"):
                self._begin_capture(stream.handle)
            uses = self._captured = []
            try:
                work()
            except BaseException:
                with self._told("giving up a capture"):
                    self._drop_capture(stream.handle)
                raise
            finally:
                self._captured = None
            with self._told("capturing a graph"):
                handle = self._end_capture(stream.handle)
        return self._keep(Graph(self, handle, uses))

    def load_module(self, image: bytes) -> Module:
        """Load kernels: PTX text or a cubin for this device; a shared object for the host.

        Raises:
            DeviceError: It is none, or none for this device.
        """
        self._check_takable()
        with self._told("loading kernels"):
            handle = self._load_module(image)
        return self._keep(Module(self, handle))

    # ------------------------------------------------------------------ work

    def copy_in(self, buffer: Buffer, array: Array, stream: Stream, *, offset: int = 0) -> None:
        """Ask for a copy of a contiguous host array into a buffer, ``offset`` bytes from its start.

        The array must stay as it is until the copy is done; from memory that is not pinned the
        library may wait for the copy.

        Raises:
            DeviceStateError: The array does not fit, or is not contiguous.
        """
        address = self._place(buffer, array, offset)
        self._note_copy(buffer, array)
        with self._told("copying to the device"):
            self._copy_in(address, array, stream.handle)

    def copy_out(self, array: Array, buffer: Buffer, stream: Stream, *, offset: int = 0) -> None:
        """Ask for a copy of a buffer, ``offset`` bytes from its start, into a contiguous array.

        Raises:
            DeviceStateError: The array does not fit, is not contiguous, or may not be written to.
        """
        address = self._place(buffer, array, offset)
        if not array.flags.writeable:
            raise DeviceStateError("the array may only be read")
        self._note_copy(buffer, array)
        with self._told("copying from the device"):
            self._copy_out(array, address, stream.handle)

    def synchronize_stream(self, stream: Stream) -> None:
        """See ``Stream.synchronize``."""
        self._check_not_capturing("wait")
        with self._told("waiting for a stream"):
            self._synchronize_stream(stream.handle)

    def stream_wait(self, stream: Stream, event: Event) -> None:
        """See ``Stream.wait_for``."""
        with self._told("waiting for an event"):
            self._stream_wait(stream.handle, event.handle)

    def record_event(self, event: Event, stream: Stream) -> None:
        """See ``Event.record``."""
        with self._told("recording an event"):
            self._record_event(event.handle, stream.handle)

    def event_is_done(self, event: Event) -> bool:
        """See ``Event.is_done``."""
        with self._told("asking for an event"):
            return self._event_is_done(event.handle)

    def synchronize_event(self, event: Event) -> None:
        """See ``Event.synchronize``."""
        self._check_not_capturing("wait")
        with self._told("waiting for an event"):
            self._synchronize_event(event.handle)

    def elapsed_ms(self, first: Event, second: Event) -> float:
        """See ``Event.elapsed_ms``."""
        with self._told("measuring between events"):
            return self._elapsed_ms(first.handle, second.handle)

    def launch_graph(self, graph: Graph, stream: Stream) -> None:
        """See ``Graph.launch``."""
        with self._told("launching a graph"):
            self._launch_graph(graph.handle, stream.handle)

    def launch_kernel(
        self,
        module: Module,
        name: str,
        stream: Stream,
        *,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Buffer | np.generic],
    ) -> None:
        """See ``Module.launch``."""
        values = [_argument(each) for each in arguments]
        self._note(module, *(each for each in arguments if isinstance(each, Buffer)))
        with self._told(f"launching {name}"):
            self._launch_kernel(
                module.handle, name, stream.handle, grid=grid, block=block, arguments=values
            )

    # -------------------------------------------------------------- plumbing

    def forget(self, resource: Resource) -> None:
        """A resource is being freed."""
        self._check_not_capturing("free")
        del self._open[resource]

    def free_handle(self, kind: Kind, handle: Handle) -> None:
        """Free what stands behind a resource."""
        with self._told(f"freeing a {kind.value}"):
            self._free(kind, handle)

    def _keep(self, resource: Held) -> Held:
        self._open[resource] = None
        return resource

    @staticmethod
    def _freed(resource: Resource) -> list[ModelEngineError]:
        try:
            resource.free()
        except ModelEngineError as failure:
            return [failure]
        return []

    def _note_copy(self, buffer: Buffer, array: Array) -> None:
        """Note what a captured copy is between: a graph must not outlive it unseen."""
        if self._captured is None:
            return
        for each in self._open:
            if isinstance(each, PinnedArray) and np.may_share_memory(each.array, array):
                self._note(buffer, each)
                return
        raise DeviceStateError("a captured copy is from or to a pinned array, and this is none")

    def _note(self, *uses: Resource) -> None:
        if self._captured is not None:
            self._captured.extend(uses)

    def _check_takable(self) -> None:
        self.check_entered()
        self._check_not_capturing("take")

    def _check_not_capturing(self, doing: str) -> None:
        if self._captured is not None and _THREAD.innermost is self:
            raise DeviceStateError(f"work that is captured must not {doing} anything")

    def _place(self, buffer: Buffer, array: Array, offset: int) -> int:
        if not array.flags.c_contiguous:
            raise DeviceStateError("only contiguous arrays are copied")
        if offset < 0 or offset + array.nbytes > buffer.nbytes:
            raise DeviceStateError(
                f"{array.nbytes} bytes at {offset} do not fit a buffer of {buffer.nbytes}"
            )
        return buffer.address + offset

    def begin_call(self) -> Device | None:
        """Take the device for this thread and make it current; return which one was before."""
        if not self._turn.acquire(blocking=False):
            raise DeviceStateError("another thread is using this device; one at a time may")
        before = _THREAD.innermost
        if before is self:
            return before
        try:
            with self._translating("making the device current"):
                self._push()
        except BaseException:
            self._turn.release()
            raise
        _THREAD.innermost = self
        return before

    def end_call(self, before: Device | None) -> None:
        """Undo ``begin_call``, which returned ``before``."""
        try:
            if before is not self:
                _THREAD.innermost = before
                with self._translating("leaving the device's context"):
                    self._pop()
        finally:
            self._turn.release()

    def translated(self, error: Exception, doing: str) -> DeviceError:
        """A library's exception as one of ours."""
        return self._translated(error, doing)

    def _told(self, doing: str) -> _Call:
        return _Call(self, doing)

    @contextmanager
    def _translating(self, doing: str) -> Iterator[None]:
        """Foreign exceptions become ours."""
        try:
            yield
        except ModelEngineError:
            raise
        # The libraries' exceptions share no base class.
        except Exception as error:
            raise self._translated(error, doing) from error


def _argument(value: Buffer | np.generic) -> np.generic:
    if isinstance(value, Buffer):
        return np.uint64(value.address)
    # To pycuda a bool is no number; the device reads the same byte.
    return np.uint8(value) if isinstance(value, np.bool_) else value
