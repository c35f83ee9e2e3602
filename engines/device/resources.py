"""What can be open on a device; each is made by a ``Device``, and freed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engines.device.library import Array, Handle, Kind
from engines.errors import DeviceStateError

if TYPE_CHECKING:  # each needs the other's name, and only this one's methods do
    from engines.device.contract import Device


class Resource:
    """One thing that is open on a device."""

    def __init__(self, device: Device, kind: Kind, handle: Handle) -> None:
        self._device = device
        self.kind = kind
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
            raise DeviceStateError(f"this {self.kind.value} is freed")
        return self._handle

    def free(self) -> None:
        """Give it back.

        Raises:
            DeviceStateError: It is freed, the device is closed, or it is capturing.
            DeviceError: The driver refused; it is freed all the same.
        """
        handle = self.handle
        self._device.forget(self)
        self._is_open = False
        self._device.free_handle(self.kind, handle)


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

    def __init__(self, device: Device, handle: Handle, uses: Sequence[Resource]) -> None:
        super().__init__(device, Kind.GRAPH, handle)
        # What a launch would read and write after it is gone, unseen by the driver.
        self._uses = tuple(uses)

    def launch(self, stream: Stream) -> None:
        """Ask the stream for all of it; arrays are read and written where they were.

        Raises:
            DeviceStateError: A buffer, pinned array or module of it is freed.
            DeviceError: The driver refused.
        """
        for each in self._uses:
            _ = each.handle
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
