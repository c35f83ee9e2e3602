"""Images go to the device as they arrive, and come out as the model's input, in device memory.

``add`` lays an image into pinned memory, asks the stream for its copy and its kernels, and comes
back: while the device works the next image is laid into the next slot. ``add_all`` does so with
many at once, where they are there already. ``whole_input`` and ``input_of`` do the same as
``assemble`` and ``items_input`` of ``engines.preprocessing.running``, and refuse what those refuse.

Images of one series have their pictures here until ``clear``; an image's picture is known by what
``add`` returned for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from types import TracebackType
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from engines.device.contract import Buffer, Device, Event, PinnedArray, Stream
from engines.errors import EngineMisuseError, ImageFault, UnfitImagesError
from engines.kernel.fusing import FusedPlan
from engines.kernel.layout import MAP, NO_VALUES, TILE, Bytes
from engines.kernel.packing import (
    PackedSlice,
    fits,
    pack_map,
    pack_order,
    pack_recipe,
    pack_slice,
)
from engines.preprocessing.collecting import Item, check_alike, order_pictures
from engines.preprocessing.running import plan_items, prepare
from engines.preprocessing.values import Picture, StoredImage
from engines.steps import EachImage

SLOTS = 3
"""One is laid out, one is copied, one is computed."""
CHUNK = 64
"""Pictures for which memory is taken at a time."""
BATCH_BYTES = 16 << 20
"""Of the images that are copied together: enough to keep a bus busy, little enough that copies and
kernels overlap."""
ROWS_OF_BLOCK = 4
"""Of cells, where a launch has more blocks than any device runs at a time: a block's beginning is
paid for once."""
THREADS = 256
"""Of a block: eight warps hide the latency of memory on every generation."""
MAP_THREADS = 1024
"""Of the one block that looks at all values of a picture."""
STATUS_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPicture:
    """The picture of one image, on the device."""

    number: int
    """In the order of ``add``."""
    picture: Picture
    """What is known of it; its values are no memory and mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInput:
    """The model's input, in memory of the device."""

    buffer: Buffer
    """Contiguous float32 from its start on; whoever asked next may have overwritten it."""
    shape: tuple[int, ...]
    ready: Event
    """Before it, the buffer's content is not the input: let a stream wait for it."""


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedPicture:
    """The picture of an image that went the other way."""

    values: Bytes
    picture: Picture

    @property
    def nbytes(self) -> int:
        """Of its values."""
        return self.values.nbytes


Packed: TypeAlias = PackedSlice | PreparedPicture


class Freeable(Protocol):
    """What is given back once."""

    def free(self) -> None:
        """Give it back."""


Held = TypeVar("Held", bound=Freeable)


class _Chunk:
    """Memory of the device for some pictures, and a word for each: whether a map found nothing."""

    def __init__(self, device: Device, picture_bytes: int) -> None:
        self.status_offset = CHUNK * picture_bytes
        self.buffer = device.allocate(self.status_offset + CHUNK * STATUS_BYTES)


class FusedStaging:
    """The pictures of one series, on a device; a context manager."""

    def __init__(self, device: Device, plan: FusedPlan, kernels: bytes) -> None:
        """Nothing is taken yet.

        Args:
            device: Entered.
            plan: Of the package.
            kernels: Compiled for this device (``engines.kernel.compiling``).
        """
        self._device = device
        self._plan = plan
        self._kernels = kernels
        self._picture_bytes = plan.grid.rows * plan.grid.columns * np.dtype(np.float32).itemsize
        self._count = 0
        self._turns = 0
        self._chunks: list[_Chunk] = []
        self._input: Buffer | None = None
        self._looks_for_foreground = any(
            getattr(step, "foreground_above", None) is not None for step in plan.maps
        )

    def __enter__(self) -> FusedStaging:
        with ExitStack() as stack:
            self._module = self._kept(stack, self._device.load_module(self._kernels))
            self._stream = self._kept(stack, self._device.stream())
            self._slots = [self._kept(stack, Slot(self._device)) for _ in range(SLOTS)]
            self._order = self._kept(stack, Slot(self._device))
            self._maps = self._kept(stack, Slot(self._device))
            self._map_buffer = self._send_maps()
            stack.callback(self._free_pictures)
            # What runs on the stream uses all of it.
            stack.callback(self._stream.synchronize)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def add(self, image: StoredImage) -> StagedPicture:
        """Ask for the picture of an image that has arrived; see ``add_all``."""
        return self.add_all([image])[0]

    def add_all(self, images: Sequence[StoredImage]) -> tuple[StagedPicture, ...]:
        """Ask for the pictures of several images, many by one copy and one launch.

        Their pixels are read before this returns. Where one of them is refused, none is added.

        Raises:
            UnfitImagesError: No step can make a picture of an image. That nothing lies above
                ``foreground_above`` is told by who makes the input.
            DeviceError: The device failed, or has not so much memory.
        """
        before = self._count
        staged: list[StagedPicture] = []
        try:
            for batch in self._batches(images):
                pictures = self._put_batch(batch)
                numbers = range(self._count, self._count + len(pictures))
                staged += (
                    StagedPicture(number=number, picture=picture)
                    for number, picture in zip(numbers, pictures, strict=True)
                )
                self._count += len(pictures)
        except BaseException:
            self._count = before
            raise
        return tuple(staged)

    def whole_input(self, staged: Sequence[StagedPicture]) -> DeviceInput:
        """Ask for the model's input of a whole series, as ``assemble`` makes it.

        Args:
            staged: All pictures of the series, in any order where they have positions.

        Raises:
            UnfitImagesError: The pictures make no input.
            DeviceError: The device failed, or has not so much memory.
        """
        ordered = [staged[place] for place in order_pictures([each.picture for each in staged])]
        items = plan_items(
            [each.picture.position_mm for each in ordered],
            [each.picture.thickness_mm for each in ordered],
            self._plan.collect,
        )
        if not isinstance(self._plan.collect, EachImage):
            for one, other in pairwise(ordered):
                check_alike(one.picture, other.picture)
        return self.input_of(ordered, items, range(len(items)))

    def input_of(
        self, ordered: Sequence[StagedPicture], items: Sequence[Item], places: range
    ) -> DeviceInput:
        """Ask for the model's input of some items in a row, as ``items_input`` makes it.

        Args:
            ordered: The pictures of which the items' members are the places.
            items: Those wanted and their neighbours, in order; at the ends of the series only
                those that there are.
            places: In ``items``, of those wanted.

        Raises:
            UnfitImagesError: The members of an item differ, or nothing lies above
                ``foreground_above`` in one of them.
            EngineMisuseError: Some items of a layout that takes the whole stack as one.
            DeviceError: The device failed, or has not so much memory.
        """
        if self._plan.layout.is_volume and len(places) < len(items):
            raise EngineMisuseError(f"layout {self._plan.layout.value} has no items")
        for item in items:
            for member in item.members[1:]:
                check_alike(ordered[item.members[0]].picture, ordered[member].picture)
        if self._looks_for_foreground:
            self._check_foreground(
                {ordered[each].number for item in items for each in item.members}
            )
        made = self._input_buffer(len(places))
        ready = self._make_channels(ordered, items, places, made)
        return DeviceInput(buffer=made, shape=self._plan.input_shape(len(places)), ready=ready)

    def clear(self) -> None:
        """Forget all pictures; their memory is kept for the next series."""
        self._count = 0

    # --------------------------------------------------------------- plumbing

    @staticmethod
    def _kept(stack: ExitStack, resource: Held) -> Held:
        stack.callback(resource.free)
        return resource

    def _free_pictures(self) -> None:
        for chunk in self._chunks:
            chunk.buffer.free()
        self._chunks.clear()
        if self._input is not None:
            self._input.free()
            self._input = None

    def _send_maps(self) -> Buffer | None:
        packed = [pack_map(step, is_first=not place) for place, step in enumerate(self._plan.maps)]
        if not packed:
            return None
        place = self._maps.begin(len(packed) * MAP.itemsize)
        place[:] = np.stack(packed).view(np.uint8)
        return self._maps.send(place.nbytes, self._stream)

    def _batches(self, images: Sequence[StoredImage]) -> Iterator[Sequence[Packed]]:
        """Neighbours that go together, as long as their slots are not too large."""
        batch: list[Packed] = []
        nbytes = 0
        for image in images:
            packed = pack_slice(image, self._plan) if fits(image) else self._prepared(image)
            longest = max(nbytes, packed.nbytes)
            if batch and (
                longest * (len(batch) + 1) > BATCH_BYTES or type(packed) is not type(batch[0])
            ):
                yield batch
                batch, longest = [], packed.nbytes
            batch.append(packed)
            nbytes = longest
        if batch:
            yield batch

    def _put_batch(self, batch: Sequence[Packed]) -> list[Picture]:
        last = self._count + len(batch) - 1
        while last // CHUNK >= len(self._chunks):
            self._chunks.append(_Chunk(self._device, self._picture_bytes))
        slot = self._slots[self._turns % SLOTS]
        self._turns += 1
        put = self._put_slices if isinstance(batch[0], PackedSlice) else self._put_prepared
        try:
            put(slot, batch)
        finally:
            # Whatever was asked for still reads the slot.
            slot.end(self._stream)
        return [packed.picture for packed in batch]

    def _put_slices(self, slot: Slot, batch: Sequence[Packed]) -> None:
        slices = [packed for packed in batch if isinstance(packed, PackedSlice)]
        stride = max(packed.nbytes for packed in slices)
        place = slot.begin(stride * len(slices))
        for number, packed in enumerate(slices):
            address = self._picture_address(self._count + number)
            packed.write(place[number * stride :], address, stride)
        buffer = slot.send(place.nbytes, self._stream)
        cells = max(packed.row_cells for packed in slices)
        blocks = cells if len(slices) == 1 else -(-cells // ROWS_OF_BLOCK)
        self._launch("edge_triage_place", (blocks, 1, len(slices)), THREADS, buffer)
        for number in range(len(slices)):
            self._map(self._count + number)

    def _map(self, number: int) -> None:
        if self._map_buffer is None:
            return
        chunk, _ = self._place_of(number)
        status = chunk.buffer.address + chunk.status_offset + number % CHUNK * STATUS_BYTES
        for each in range(len(self._plan.maps)):
            self._launch(
                "edge_triage_map",
                (1, 1, 1),
                MAP_THREADS,
                np.uint64(self._map_buffer.address + each * MAP.itemsize),
                np.uint64(self._picture_address(number)),
                np.int32(self._plan.grid.rows),
                np.int32(self._plan.grid.columns),
                np.uint64(status),
            )

    def _prepared(self, image: StoredImage) -> PreparedPicture:
        """Pixels that the kernel does not read go the other way, and only their picture here."""
        picture = prepare(image, self._plan.steps)
        nothing = np.broadcast_to(NO_VALUES, picture.values.shape)
        return PreparedPicture(
            values=picture.values.view(np.uint8).reshape(-1),
            picture=replace(picture, values=nothing),
        )

    def _put_prepared(self, slot: Slot, batch: Sequence[Packed]) -> None:
        pictures = [packed for packed in batch if isinstance(packed, PreparedPicture)]
        place = slot.begin(self._picture_bytes * len(pictures) + STATUS_BYTES)
        nothing_wrong = place[-STATUS_BYTES:]
        nothing_wrong[:] = 0
        for number, prepared in enumerate(pictures, start=self._count):
            part = place[(number - self._count) * self._picture_bytes :][: self._picture_bytes]
            part[:] = prepared.values
            chunk, offset = self._place_of(number)
            self._device.copy_in(chunk.buffer, part, self._stream, offset=offset)
            status = chunk.status_offset + number % CHUNK * STATUS_BYTES
            self._device.copy_in(chunk.buffer, nothing_wrong, self._stream, offset=status)

    def _check_foreground(self, numbers: set[int]) -> None:
        found = []
        for chunk in self._chunks:
            status = self._order.begin(CHUNK * STATUS_BYTES).view(np.int32)
            self._device.copy_out(status, chunk.buffer, self._stream, offset=chunk.status_offset)
            self._stream.synchronize()
            found.append(status.copy())
        if any(found[number // CHUNK][number % CHUNK] for number in numbers):
            raise UnfitImagesError(
                ImageFault.NO_FOREGROUND, "nothing lies above 'foreground_above'"
            )

    def _input_buffer(self, items: int) -> Buffer:
        nbytes = items * len(self._plan.channels) * self._picture_bytes
        if self._input is None or self._input.nbytes < nbytes:
            if self._input is not None:
                self._stream.synchronize()
                self._input.free()
                self._input = None
            self._input = self._device.allocate(nbytes)
        return self._input

    def _make_channels(
        self, ordered: Sequence[StagedPicture], items: Sequence[Item], places: range, made: Buffer
    ) -> Event:
        recipe = pack_recipe(self._plan, len(places))
        order = pack_order(items, [self._address(each.number) for each in ordered])
        both = self._order.begin(recipe.nbytes + order.nbytes)
        both[: recipe.nbytes], both[recipe.nbytes :] = recipe, order
        pixels = self._plan.grid.rows * self._plan.grid.columns
        try:
            buffer = self._order.send(both.nbytes, self._stream)
            self._launch(
                "edge_triage_channels",
                (-(-pixels // TILE), len(places), 1),
                THREADS,
                buffer,
                np.uint64(buffer.address + recipe.nbytes),
                np.int32(len(items)),
                np.int32(places.start),
                made,
            )
        finally:
            ready = self._order.end(self._stream)
        return ready

    def _address(self, number: int) -> int:
        if number >= self._count:
            raise EngineMisuseError("this picture was cleared")
        return self._picture_address(number)

    def _picture_address(self, number: int) -> int:
        chunk, offset = self._place_of(number)
        return chunk.buffer.address + offset

    def _place_of(self, number: int) -> tuple[_Chunk, int]:
        return self._chunks[number // CHUNK], number % CHUNK * self._picture_bytes

    def _launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        *arguments: Buffer | np.generic,
    ) -> None:
        self._module.launch(
            name, self._stream, grid=grid, block=(threads, 1, 1), arguments=arguments
        )
