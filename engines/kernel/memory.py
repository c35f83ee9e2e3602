"""Memory of a staging: that of the device for pictures, and the pinned one beside it."""

from __future__ import annotations

import numpy as np

from engines.device.contract import Buffer, Device, Event, PinnedArray, Stream
from engines.errors import EngineMisuseError
from engines.kernel.layout import Bytes

CHUNK = 64
"""Pictures for which memory is taken at a time."""
STATUS_BYTES = 4


class Place:
    """Memory of the device for one picture; it is free again when nobody holds this any more.

    What was asked of the stream with it is done before it takes another picture: all of a staging
    goes through one stream.
    """

    __slots__ = ("_free", "number")

    def __init__(self, free: list[int]) -> None:
        """Take the number that was freed last.

        Args:
            free: Numbers of one staging that are free, not empty.
        """
        self.number = free.pop()
        self._free = free

    def __del__(self) -> None:
        self._free.append(self.number)

    def is_of(self, free: list[int]) -> bool:
        """Whether a staging's numbers are these."""
        return self._free is free


class Slot:
    """Pinned memory and memory of the device that take the same bytes, one use after the other."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._done = device.event()
        self._is_used = False
        self._pinned: PinnedArray | None = None
        self._buffer: Buffer | None = None

    def begin(self, nbytes: int) -> Bytes:
        """Wait for the last use, and return memory to fill."""
        if self._is_used:
            self._done.synchronize()
            self._is_used = False
        if self._pinned is None or self._buffer is None or self._buffer.nbytes < nbytes:
            self.free_memory()
            self._pinned = self._device.pinned((nbytes,), np.uint8)
            self._buffer = self._device.allocate(nbytes)
        array: Bytes = self._pinned.array[:nbytes]
        return array

    def send(self, nbytes: int, stream: Stream) -> Buffer:
        """Ask for the copy of what was filled."""
        if self._pinned is None or self._buffer is None:
            raise EngineMisuseError("a slot is sent before it is begun")
        self._device.copy_in(self._buffer, self._pinned.array[:nbytes], stream)
        return self._buffer

    def end(self, stream: Stream) -> Event:
        """All that uses the slot has been asked for."""
        self._done.record(stream)
        self._is_used = True
        return self._done

    def free_memory(self) -> None:
        """Give back what was taken; the slot can be begun again."""
        for held in (self._pinned, self._buffer):
            if held is not None:
                held.free()
        self._pinned = self._buffer = None

    def free(self) -> None:
        """Wait for the last use, and give everything back."""
        if self._is_used:
            self._done.synchronize()
        self.free_memory()
        self._done.free()


class Chunk:
    """Memory of the device for some pictures, and a word for each: whether a map found nothing."""

    def __init__(self, device: Device, picture_bytes: int) -> None:
        self.status_offset = CHUNK * picture_bytes
        self.buffer = device.allocate(self.status_offset + CHUNK * STATUS_BYTES)
