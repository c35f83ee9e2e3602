"""Images go to the device as they arrive, and come out as the model's input, in device memory.

``add`` lays an image into pinned memory, asks the stream for its copy and its kernels, and comes
back: while the device works the next image is laid into the next slot. ``add_all`` does so with
many at once, where they are there already. ``whole_input`` and ``input_of`` do the same as
``assemble`` and ``items_input`` of ``engines.preprocessing.running``, and refuse what those refuse.

Pictures of any number of series lie here at the same time. One keeps its memory for as long as
somebody holds what ``add`` returned for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from types import TracebackType
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from engines.device.contract import Buffer, Device, Event
from engines.errors import EngineMisuseError, ImageFault, UnfitImagesError
from engines.kernel.fusing import FusedPlan
from engines.kernel.layout import MAP, NO_VALUES, STORED_BYTES, TILE, Bytes
from engines.kernel.memory import CHUNK, STATUS_BYTES, Chunk, Place, Slot
from engines.kernel.packing import (
    PackedSlice,
    fits,
    geometry_for,
    pack_map,
    pack_order,
    pack_recipe,
    pack_slice,
    pixels_in,
)
from engines.preprocessing.collecting import Item, check_alike, order_pictures
from engines.preprocessing.running import plan_items, prepare
from engines.preprocessing.values import Picture, StoredImage, StoredPixels
from engines.runner import ItemRun
from engines.steps import EachImage

SLOTS = 3
"""One is laid out, one is copied, one is computed."""
BATCH_BYTES = 16 << 20
"""Of the images that are copied together: enough to keep a bus busy, little enough that copies and
kernels overlap."""
KEPT_BYTES = 64 << 20
"""Of pictures, and of the input, while no picture is held: a board shares its memory with the
processor, and one long series must not keep it for good."""
ROWS_OF_BLOCK = 4
"""Of cells, where a launch has more blocks than any device runs at a time: a block's beginning is
paid for once."""
THREADS = 256
"""Of a block: eight warps hide the latency of memory on every generation."""
MAP_THREADS = 1024
"""Of the one block that looks at all values of a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPicture:
    """The picture of one image, on the device."""

    place: Place
    """Where it lies."""
    picture: Picture
    """What is known of it; its values are no memory and mean nothing."""

    @property
    def nbytes(self) -> int:
        """Memory of its values, on the device."""
        return self.picture.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInput:
    """The model's input, in memory of the device."""

    buffer: Buffer
    """Contiguous float32 from its start on; whoever asked next may have overwritten it."""
    shape: tuple[int, ...]
    ready: Event
    """Before it, the buffer's content is not the input: let a stream wait for it."""


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
        self._free: list[int] = []
        self._turns = 0
        self._offered: StoredPixels | None = None
        self._chunks: list[Chunk] = []
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

    def place_for(self, image: StoredImage) -> StoredPixels | None:
        """Return pinned memory for the pixels of the image that is added next; see ``Runner``.

        Raises:
            UnfitImagesError: No step can make a picture of it.
            DeviceError: The device failed, or has not so much memory.
        """
        self._offered = None
        if image.pixels.dtype.itemsize == STORED_BYTES and fits(image):
            geometry = geometry_for(image, self._plan)
            slot = self._slots[self._turns % SLOTS].begin(geometry.nbytes)
            self._offered = pixels_in(slot, geometry, image)
        return self._offered

    def add(self, image: StoredImage) -> StagedPicture:
        """Ask for the picture of an image that has arrived; see ``add_all``."""
        (staged,) = self._added([image])
        return staged

    def add_all(self, images: Sequence[StoredImage]) -> tuple[StagedPicture, ...]:
        """Ask for the pictures of several images, many by one copy and one launch.

        Their pixels are read before this returns, and lie in none of ``place_for``. Where one of
        them is refused, none is added.

        Raises:
            UnfitImagesError: No step can make a picture of an image. That nothing lies above
                ``foreground_above`` is told by who makes the input.
            DeviceError: The device failed, or has not so much memory.
        """
        self._offered = None
        return self._added(images)

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
        return self.input_of([self.series_run(ordered, items)])

    def series_run(
        self, ordered: Sequence[StagedPicture], items: Sequence[Item]
    ) -> ItemRun[StagedPicture]:
        """Return a whole series as one run.

        Args:
            ordered: In the order for which the items were planned.
            items: All of them.

        Raises:
            UnfitImagesError: The pictures make no stack.
        """
        if not isinstance(self._plan.collect, EachImage):
            for one, other in pairwise(ordered):
                check_alike(one.picture, other.picture)
        return ItemRun(pictures=dict(enumerate(ordered)), items=items, places=range(len(items)))

    def input_of(self, runs: Sequence[ItemRun[StagedPicture]]) -> DeviceInput:
        """Ask for the model's input of some items, as ``items_input`` makes it for each run.

        Args:
            runs: At least one; of a layout that takes the whole stack as one, one of all items.

        Raises:
            UnfitImagesError: The members of an item differ, or nothing lies above
                ``foreground_above`` in one of them.
            EngineMisuseError: Some items of a layout that takes the whole stack as one, or pictures
                of another staging.
            DeviceError: The device failed, or has not so much memory.
        """
        is_whole = len(runs) == 1 and len(runs[0].places) == len(runs[0].items)
        if self._plan.layout.is_volume and not is_whole:
            raise EngineMisuseError(f"layout {self._plan.layout.value} has no items")
        used: set[int] = set()
        for run in runs:
            for item in run.items:
                first, *others = (run.pictures[member] for member in item.members)
                for other in others:
                    check_alike(first.picture, other.picture)
                used |= {self._number(each) for each in (first, *others)}
        if self._looks_for_foreground:
            self._check_foreground(used)
        count = sum(len(run.places) for run in runs)
        made = self._input_buffer(count)
        ready = self._make_channels(runs, count, made)
        return DeviceInput(buffer=made, shape=self._plan.input_shape(count), ready=ready)

    # --------------------------------------------------------------- plumbing

    @staticmethod
    def _kept(stack: ExitStack, resource: Held) -> Held:
        stack.callback(resource.free)
        return resource

    def _free_pictures(self) -> None:
        for chunk in self._chunks:
            chunk.buffer.free()
        self._chunks.clear()
        self._free = []  # the pictures that somebody still holds are of no staging now
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

    def _added(self, images: Sequence[StoredImage]) -> tuple[StagedPicture, ...]:
        staged: list[StagedPicture] = []
        for batch in self._batches(images):
            places = [self._place() for _ in batch]
            self._put_batch(batch, [place.number for place in places])
            staged += (
                StagedPicture(place=place, picture=packed.picture)
                for place, packed in zip(places, batch, strict=True)
            )
        return tuple(staged)

    def _place(self) -> Place:
        if len(self._free) == len(self._chunks) * CHUNK:
            self._give_back()
        if not self._free:
            first = len(self._chunks) * CHUNK
            self._chunks.append(Chunk(self._device, self._picture_bytes))
            self._free.extend(reversed(range(first, first + CHUNK)))
        return Place(self._free)

    def _give_back(self) -> None:
        """Nobody holds a picture: what only a large series needed is not kept."""
        most = max(KEPT_BYTES // (CHUNK * self._picture_bytes), 1)
        is_large = self._input is not None and self._input.nbytes > KEPT_BYTES
        if len(self._chunks) <= most and not is_large:
            return
        self._stream.synchronize()  # what was asked for may still use it
        while len(self._chunks) > most:
            self._chunks.pop().buffer.free()
        self._free[:] = reversed(range(len(self._chunks) * CHUNK))
        if self._input is not None and is_large:
            self._input.free()
            self._input = None

    def _put_batch(self, batch: Sequence[Packed], numbers: Sequence[int]) -> None:
        slot = self._slots[self._turns % SLOTS]
        self._turns += 1
        put = self._put_slices if isinstance(batch[0], PackedSlice) else self._put_prepared
        try:
            put(slot, batch, numbers)
        finally:
            # Whatever was asked for still reads the slot.
            slot.end(self._stream)
            self._offered = None

    def _put_slices(self, slot: Slot, batch: Sequence[Packed], numbers: Sequence[int]) -> None:
        slices = [packed for packed in batch if isinstance(packed, PackedSlice)]
        stride = max(packed.nbytes for packed in slices)
        memory = slot.begin(stride * len(slices))
        for place, (packed, number) in enumerate(zip(slices, numbers, strict=True)):
            packed.write(
                memory[place * stride :],
                self._picture_address(number),
                stride,
                has_pixels=packed.image.pixels is self._offered,
            )
        buffer = slot.send(memory.nbytes, self._stream)
        cells = max(packed.row_cells for packed in slices)
        blocks = cells if len(slices) == 1 else -(-cells // ROWS_OF_BLOCK)
        self._launch("edge_triage_place", (blocks, 1, len(slices)), THREADS, buffer)
        for number in numbers:
            self._map(number)

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

    def _put_prepared(self, slot: Slot, batch: Sequence[Packed], numbers: Sequence[int]) -> None:
        pictures = [packed for packed in batch if isinstance(packed, PreparedPicture)]
        memory = slot.begin(self._picture_bytes * len(pictures) + STATUS_BYTES)
        nothing_wrong = memory[-STATUS_BYTES:]
        nothing_wrong[:] = 0
        for place, (prepared, number) in enumerate(zip(pictures, numbers, strict=True)):
            part = memory[place * self._picture_bytes :][: self._picture_bytes]
            part[:] = prepared.values
            chunk, offset = self._place_of(number)
            self._device.copy_in(chunk.buffer, part, self._stream, offset=offset)
            status = chunk.status_offset + number % CHUNK * STATUS_BYTES
            self._device.copy_in(chunk.buffer, nothing_wrong, self._stream, offset=status)

    def _check_foreground(self, numbers: set[int]) -> None:
        found = {}
        for each in {number // CHUNK for number in numbers}:
            chunk = self._chunks[each]
            status = self._order.begin(CHUNK * STATUS_BYTES).view(np.int32)
            self._device.copy_out(status, chunk.buffer, self._stream, offset=chunk.status_offset)
            self._stream.synchronize()
            found[each] = status.copy()
        if any(found[number // CHUNK][number % CHUNK] for number in numbers):
            raise UnfitImagesError(
                ImageFault.NO_FOREGROUND, "nothing lies above 'foreground_above'"
            )

    @property
    def _item_bytes(self) -> int:
        return len(self._plan.channels) * self._picture_bytes

    def _input_buffer(self, items: int) -> Buffer:
        nbytes = items * self._item_bytes
        if self._input is None or self._input.nbytes < nbytes:
            if self._input is not None:
                self._stream.synchronize()
                self._input.free()
                self._input = None
            self._input = self._device.allocate(nbytes)
        return self._input

    def _make_channels(
        self, runs: Sequence[ItemRun[StagedPicture]], count: int, made: Buffer
    ) -> Event:
        recipe = pack_recipe(self._plan, count)
        orders = [pack_order(run.items, self._addresses(run)) for run in runs]
        memory = self._order.begin(recipe.nbytes + sum(order.nbytes for order in orders))
        np.concatenate([recipe, *orders], out=memory)
        pixels = self._plan.grid.rows * self._plan.grid.columns
        try:
            buffer = self._order.send(memory.nbytes, self._stream)
            at, row = recipe.nbytes, 0
            for run, order in zip(runs, orders, strict=True):
                self._launch(
                    "edge_triage_channels",
                    (-(-pixels // TILE), len(run.places), 1),
                    THREADS,
                    buffer,
                    np.uint64(buffer.address + at),
                    np.int32(len(run.items)),
                    np.int32(run.places.start),
                    np.uint64(made.address + row * self._item_bytes),
                )
                at, row = at + order.nbytes, row + len(run.places)
        finally:
            ready = self._order.end(self._stream)
        return ready

    def _addresses(self, run: ItemRun[StagedPicture]) -> Callable[[int], int]:
        return lambda member: self._picture_address(run.pictures[member].place.number)

    def _number(self, staged: StagedPicture) -> int:
        if not staged.place.is_of(self._free):
            raise EngineMisuseError("this picture is of another staging, or of one that was left")
        return staged.place.number

    def _picture_address(self, number: int) -> int:
        chunk, offset = self._place_of(number)
        return chunk.buffer.address + offset

    def _place_of(self, number: int) -> tuple[Chunk, int]:
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
