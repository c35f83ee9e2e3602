"""What every device promises, whichever library talks to its driver.

* Nothing is taken before ``with``; everything is given back after it, whatever is still open.
* Each resource is freed once; freeing it twice, or using it afterwards, is an error of ours that is
  told before a driver sees it.
* Copies and launches are ordered within a stream and nowhere else; ``Stream.synchronize`` waits.
* Whatever a library raises arrives as a ``DeviceError``; running out of memory has its own.

A device is used by one thread at a time: the one that entered it. A new library is a subclass with
private methods that each do one thing; ``tests/unit/engines/device/test_device_contract.py`` holds
every one of them to the list above.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from engines.errors import DeviceError, DeviceStateError, ModelEngineError

Array: TypeAlias = npt.NDArray[Any]
Handle: TypeAlias = Any
"""What a library calls a resource by."""


class Kind(str, Enum):
    """What can be open on a device."""

    PINNED = "pinned"
    BUFFER = "buffer"
    STREAM = "stream"
    EVENT = "event"
    GRAPH = "graph"
    MODULE = "module"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """Which device, by which driver and library; a part of the key of what is built for it."""

    library: str
    """What talks to the driver: pycuda, cuda-bindings, host."""
    library_version: str
    name: str
    compute_capability: tuple[int, int]
    """(0, 0) of the host."""
    driver_version: int
    """As the driver counts: 1000 * major + 10 * minor of the newest CUDA that it serves; 0 of the
    host."""
    total_bytes: int
    is_integrated: bool
    """Shares its memory with the processor, as a Jetson does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryState:
    """At one moment."""

    free_bytes: int
    total_bytes: int


class Resource:
    """One thing that is open on a device."""

    def __init__(self, device: Device, kind: Kind, handle: Handle) -> None:
        self._device = device
        self._kind = kind
        self._handle: Handle = handle
        self._is_open = True

    @property
    def handle(self) -> Handle:
        """What the library calls it by.

        Raises:
            DeviceStateError: It is freed, or the device is closed.
        """
        self._device.check_entered()
        if not self._is_open:
            raise DeviceStateError(f"this {self._kind.value} is freed")
        return self._handle

    def free(self) -> None:
        """Give it back.

        Raises:
            DeviceStateError: It is freed, or the device is closed.
            DeviceError: The driver refused.
        """
        handle = self.handle
        self._is_open = False
        self._device.forget(self)
        self._device.free_handle(self._kind, handle)


class PinnedArray(Resource):
    """Host memory that the device can copy from and to while the processor does something else."""

    def __init__(self, device: Device, handle: Handle, array: Array) -> None:
        super().__init__(device, Kind.PINNED, handle)
        self._array: Array | None = array

    @property
    def array(self) -> Array:
        """The memory, contiguous. It must not be touched after ``free``: hold no view of it."""
        if self._array is None:
            raise DeviceStateError("this pinned array is freed")
        _ = self.handle
        return self._array

    def free(self) -> None:
        """Give it back; see ``Resource.free``."""
        super().free()
        self._array = None


class Buffer(Resource):
    """Memory of the device."""

    def __init__(self, device: Device, handle: Handle, address: int, nbytes: int) -> None:
        super().__init__(device, Kind.BUFFER, handle)
        self._address = address
        self.nbytes = nbytes

    @property
    def address(self) -> int:
        """Where it begins, in the device's address space."""
        _ = self.handle
        return self._address


class Stream(Resource):
    """An order of copies and launches."""

    def __init__(self, device: Device, handle: Handle, pointer: int) -> None:
        super().__init__(device, Kind.STREAM, handle)
        self._pointer = pointer

    @property
    def pointer(self) -> int:
        """The CUstream, as other libraries (TensorRT) take it."""
        _ = self.handle
        return self._pointer

    def synchronize(self) -> None:
        """Wait until everything that was asked of the stream is done.

        Raises:
            DeviceError: Something of it failed.
        """
        self._device.synchronize_stream(self)

    def wait_for(self, event: Event) -> None:
        """Let what is asked from now on begin only after the event."""
        self._device.stream_wait(self, event)


class Event(Resource):
    """A moment in a stream."""

    def __init__(self, device: Device, handle: Handle) -> None:
        super().__init__(device, Kind.EVENT, handle)

    def record(self, stream: Stream) -> None:
        """Make it the moment when all that was asked of the stream so far is done."""
        self._device.record_event(self, stream)

    def is_done(self) -> bool:
        """Whether the moment has come."""
        return self._device.event_is_done(self)

    def synchronize(self) -> None:
        """Wait for the moment."""
        self._device.synchronize_event(self)

    def elapsed_ms(self, since: Event) -> float:
        """Milliseconds from another event; both must be done."""
        return self._device.elapsed_ms(since, self)


class Graph(Resource):
    """Work that was captured once and is launched as a whole."""

    def __init__(self, device: Device, handle: Handle) -> None:
        super().__init__(device, Kind.GRAPH, handle)

    def launch(self, stream: Stream) -> None:
        """Ask the stream for all of it."""
        self._device.launch_graph(self, stream)


class Module(Resource):
    """Compiled kernels."""

    def __init__(self, device: Device, handle: Handle) -> None:
        super().__init__(device, Kind.MODULE, handle)

    def launch(
        self,
        name: str,
        stream: Stream,
        *,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Buffer | np.generic],
    ) -> None:
        """Ask the stream for one kernel.

        Args:
            name: Of an ``extern "C"`` function.
            stream: To which it is added.
            grid: Blocks, in x, y, z.
            block: Threads of a block.
            arguments: In the kernel's order: a buffer stands for its address, a NumPy scalar for
                itself.

        Raises:
            DeviceError: There is no such kernel, or the driver refused the launch.
        """
        self._device.launch_kernel(self, name, stream, grid=grid, block=block, arguments=arguments)


Held = TypeVar("Held", bound=Resource)


class Device(ABC):
    """One device, between ``__enter__`` and ``__exit__``."""

    def __init__(self) -> None:
        self._info: DeviceInfo | None = None
        self._open: list[Resource] = []
        self._used = False

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Device:
        if self._used:
            raise DeviceStateError("a device is entered once; open a new one")
        self._used = True
        with self._told("opening the device"):
            self._info = self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # Youngest first: a graph before what it copies between.
            while self._open:
                self._open[-1].free()
        finally:
            self._open.clear()
            self._info = None
            self._leave()

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
        counts = Counter(resource._kind for resource in self._open)  # noqa: SLF001 - of this module
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
        """
        self.check_entered()
        with self._told("taking pinned memory"):
            handle, array = self._take_pinned(tuple(shape), np.dtype(dtype))
        return self._keep(PinnedArray(self, handle, array))

    def allocate(self, nbytes: int) -> Buffer:
        """Take memory of the device; its content is not defined.

        Raises:
            OutOfDeviceMemoryError: There is not so much.
            DeviceStateError: ``nbytes`` is less than 1.
        """
        self.check_entered()
        if nbytes < 1:
            raise DeviceStateError(f"a buffer has at least 1 byte, not {nbytes}")
        with self._told(f"allocating {nbytes} bytes"):
            handle, address = self._allocate(nbytes)
        return self._keep(Buffer(self, handle, address, nbytes))

    def stream(self) -> Stream:
        """Open a stream that waits for no other one."""
        self.check_entered()
        with self._told("opening a stream"):
            handle, pointer = self._open_stream()
        return self._keep(Stream(self, handle, pointer))

    def event(self, *, timing: bool = False) -> Event:
        """Open an event; one that measures time costs a little more."""
        self.check_entered()
        with self._told("opening an event"):
            handle = self._open_event(timing=timing)
        return self._keep(Event(self, handle))

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Capture what ``work`` asks of the stream, without doing it.

        Args:
            stream: To which ``work`` adds copies and launches; all memory must have been taken
                before.
            work: Called once. It must not wait for anything.

        Raises:
            DeviceError: Something in it cannot be captured; the stream can be used again.
        """
        self.check_entered()
        with self._told("capturing a graph"):
            handle = self._capture(stream.handle, work)
        return self._keep(Graph(self, handle))

    def load_module(self, image: bytes) -> Module:
        """Load kernels: PTX text or a cubin for this device.

        Raises:
            DeviceError: It is none, or none for this device.
        """
        self.check_entered()
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
        with self._told("copying to the device"):
            self._copy_in(address, array, stream.handle)

    def copy_out(self, array: Array, buffer: Buffer, stream: Stream, *, offset: int = 0) -> None:
        """Ask for a copy of a buffer, ``offset`` bytes from its start, into a contiguous array.

        Raises:
            DeviceStateError: The array does not fit, or is not contiguous.
        """
        address = self._place(buffer, array, offset)
        with self._told("copying from the device"):
            self._copy_out(array, address, stream.handle)

    def synchronize_stream(self, stream: Stream) -> None:
        """See ``Stream.synchronize``."""
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
        values = [
            np.uint64(each.address) if isinstance(each, Buffer) else each for each in arguments
        ]
        with self._told(f"launching {name}"):
            self._launch_kernel(
                module.handle, name, stream.handle, grid=grid, block=block, arguments=values
            )

    # -------------------------------------------------------------- plumbing

    def forget(self, resource: Resource) -> None:
        """A resource is being freed."""
        self._open.remove(resource)

    def free_handle(self, kind: Kind, handle: Handle) -> None:
        """Free what stands behind a resource."""
        with self._told(f"freeing a {kind.value}"):
            self._free(kind, handle)

    def _keep(self, resource: Held) -> Held:
        self._open.append(resource)
        return resource

    def _place(self, buffer: Buffer, array: Array, offset: int) -> int:
        if not array.flags.c_contiguous:
            raise DeviceStateError("only contiguous arrays are copied")
        if offset < 0 or offset + array.nbytes > buffer.nbytes:
            raise DeviceStateError(
                f"{array.nbytes} bytes at {offset} do not fit a buffer of {buffer.nbytes}"
            )
        return buffer.address + offset

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        """Foreign exceptions become ours."""
        try:
            yield
        except ModelEngineError:
            raise
        # The libraries' exceptions share no base class.
        except Exception as error:
            raise self._translated(error, doing) from error

    # ------------------------------------------------------ what a library does

    @abstractmethod
    def _enter(self) -> DeviceInfo:
        """Open the device; what was taken before a failure is given back by ``_enter`` itself."""

    @abstractmethod
    def _leave(self) -> None:
        """Close the device; all resources are freed."""

    @abstractmethod
    def _translated(self, error: Exception, doing: str) -> DeviceError:
        """The library's exception as one of ours; running out of memory has its own."""

    @abstractmethod
    def _memory(self) -> MemoryState: ...

    @abstractmethod
    def _take_pinned(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[Handle, Array]: ...

    @abstractmethod
    def _allocate(self, nbytes: int) -> tuple[Handle, int]:
        """Return handle and address."""

    @abstractmethod
    def _open_stream(self) -> tuple[Handle, int]:
        """Return handle and CUstream."""

    @abstractmethod
    def _open_event(self, *, timing: bool) -> Handle: ...

    @abstractmethod
    def _capture(self, stream: Handle, work: Callable[[], None]) -> Handle:
        """Capture in thread-local mode and instantiate; end the capture whatever ``work`` does."""

    @abstractmethod
    def _load_module(self, image: bytes) -> Handle: ...

    @abstractmethod
    def _free(self, kind: Kind, handle: Handle) -> None: ...

    @abstractmethod
    def _copy_in(self, address: int, array: Array, stream: Handle) -> None: ...

    @abstractmethod
    def _copy_out(self, array: Array, address: int, stream: Handle) -> None: ...

    @abstractmethod
    def _synchronize_stream(self, stream: Handle) -> None: ...

    @abstractmethod
    def _stream_wait(self, stream: Handle, event: Handle) -> None: ...

    @abstractmethod
    def _record_event(self, event: Handle, stream: Handle) -> None: ...

    @abstractmethod
    def _event_is_done(self, event: Handle) -> bool: ...

    @abstractmethod
    def _synchronize_event(self, event: Handle) -> None: ...

    @abstractmethod
    def _elapsed_ms(self, first: Handle, second: Handle) -> float: ...

    @abstractmethod
    def _launch_graph(self, graph: Handle, stream: Handle) -> None: ...

    @abstractmethod
    def _launch_kernel(
        self,
        module: Handle,
        name: str,
        stream: Handle,
        *,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
    ) -> None: ...
