"""The bytes that the kernel reads: a slot for each image, a recipe and an order for each input.

Pure; ``layout`` has the records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engines.errors import EngineMisuseError
from engines.kernel.fusing import FusedPlan, ValueStep
from engines.kernel.geometry import Geometry, geometry_of
from engines.kernel.layout import (
    CHANNEL,
    EXACT,
    INVERTED,
    LINE,
    MAP,
    MEMBER,
    PERCENTILES,
    RECIPE,
    SIGNED,
    SLICE,
    STORED_BYTES,
    ZSCORE,
    Bytes,
    Record,
    aligned,
)
from engines.preprocessing.collecting import Item
from engines.preprocessing.intensity import range_line
from engines.preprocessing.rescaling import (
    extremes_of,
    is_exact_in_float32,
    padding_range,
    usable_position,
    usable_spacing,
)
from engines.preprocessing.values import Picture, StoredImage, StoredPixels, Turn
from engines.steps import Letterbox, ResampleInPlane, ScaleRange, ZscoreNormalise

_MOST_SLOT_BYTES = (1 << 31) - 1
"""The kernel counts a slot's bytes in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedSlice:
    """One image as the kernel takes it."""

    header: Record
    """Of type ``SLICE``; only where the picture and the next slot lie is yet to be filled in."""
    geometry: Geometry
    image: StoredImage
    picture: Picture
    """What ``prepare`` says of it, with values that are no memory and mean nothing."""

    @property
    def nbytes(self) -> int:
        """Of its slot."""
        return self.geometry.nbytes

    @property
    def row_cells(self) -> int:
        """Cells along stored rows: so many blocks can share the work."""
        return len(self.geometry.row_table.first)

    def write(
        self, slot: Bytes, picture_address: int, next_bytes: int = 0, *, has_pixels: bool = False
    ) -> None:
        """Fill a slot.

        Args:
            slot: Its memory.
            picture_address: Where on the device the picture shall lie.
            next_bytes: From this slot to the next, where several are launched together.
            has_pixels: They were read to ``pixels_in`` of this slot.
        """
        prefix = self.geometry.prefix
        slot[SLICE.itemsize : prefix.nbytes] = prefix[SLICE.itemsize :]
        header = slot[: SLICE.itemsize].view(SLICE)
        header[:] = self.header
        header["picture"], header["next"] = picture_address, next_bytes
        if not has_pixels:
            np.copyto(pixels_in(slot, self.geometry, self.image), self.image.pixels)


def pixels_in(slot: Bytes, geometry: Geometry, image: StoredImage) -> StoredPixels:
    """Return where in its slot the pixels of an image lie: (rows, columns) of two bytes."""
    dtype = np.int16 if image.pixels.dtype.kind == "i" else np.uint16
    place = slot[geometry.prefix.nbytes :][: image.pixels.size * STORED_BYTES]
    return place.view(dtype).reshape(image.pixels.shape)


def geometry_for(image: StoredImage, plan: FusedPlan) -> Geometry:
    """Return the geometry of an image; its pixels' content is not looked at.

    Raises:
        UnfitImagesError: As ``prepare``.
    """
    turn = (image.turn if plan.turn is not None else None) or Turn()
    rows, columns = image.pixels.shape
    return geometry_of(plan.grid, (rows, columns), usable_spacing(image.spacing_mm), turn)


def fits(image: StoredImage) -> bool:
    """Whether the kernel reads such pixels; it does of all that is stored in one or two bytes."""
    return (
        image.pixels.dtype.itemsize <= STORED_BYTES
        and 2 * image.pixels.size * STORED_BYTES < _MOST_SLOT_BYTES
    )


def pack_slice(image: StoredImage, plan: FusedPlan) -> PackedSlice:
    """Lay out one image for the kernel.

    Raises:
        UnfitImagesError: As ``prepare``.
        EngineMisuseError: The kernel does not read such pixels: ask ``fits``.
    """
    if not fits(image):
        raise EngineMisuseError(f"the kernel reads no {image.pixels.dtype} pixels")
    # The checks, and their order, are those of engines.preprocessing.
    extremes = extremes_of(image)
    padding = padding_range(image)
    geometry = geometry_for(image, plan)
    header = geometry.prefix[: SLICE.itemsize].copy().view(SLICE)
    header["slope"], header["intercept"] = image.slope, image.intercept - plan.minus
    header["padding_value"] = plan.rescale.padding - plan.minus
    header["inverted_from"] = np.float32(sum(extremes))
    header["flags"] = _flags(image, plan, image.intercept - plan.minus)
    # Low above high: no stored value is padding.
    ends = (1, 0) if padding is None else (padding.low, padding.high)
    header["padding_low"], header["padding_high"] = ends
    _put_fill(header, plan)
    picture = Picture(
        values=geometry.values,
        extremes=extremes,
        is_monochrome1=image.is_monochrome1 and not plan.inverts,
        spacing_mm=geometry.spacing_mm,
        turn=None if plan.turn is not None else image.turn,
        position_mm=usable_position(image.position_mm),
        thickness_mm=image.thickness_mm,
    )
    return PackedSlice(header=header, geometry=geometry, image=image, picture=picture)


def pack_map(step: ValueStep, *, is_first: bool) -> Record:
    """Lay out a map of a picture's values, the first of them or a later one."""
    packed = np.zeros((), dtype=MAP)
    packed["is_first"] = is_first
    if isinstance(step, ScaleRange):
        line = range_line(step)
        packed["kind"] = LINE
        packed["base"], packed["factor"], packed["offset"] = line.in_float32()
        packed["clips"] = math.isfinite(line.ends[0])
        if packed["clips"]:
            packed["lowest"], packed["highest"] = line.ends
        return packed
    packed["has_foreground"] = step.foreground_above is not None
    packed["above"] = step.foreground_above or 0.0
    if isinstance(step, ZscoreNormalise):
        packed["kind"] = ZSCORE
        return packed
    packed["kind"] = PERCENTILES
    packed["low_percent"], packed["high_percent"] = step.percentiles
    packed["clips"], packed["highest"] = step.clip, 1.0
    return packed


def pack_recipe(plan: FusedPlan, items: int) -> Bytes:
    """Lay out how so many items become the model's input; what follows may hold any type."""
    recipe = np.zeros(1, dtype=RECIPE)
    count = len(plan.channels)
    recipe["channels"], recipe["pixels"] = count, plan.grid.rows * plan.grid.columns
    # How far apart neighbours along an axis lie: as far as all axes behind it are long.
    shape = plan.input_shape(items)
    steps = {axis: math.prod(shape[place + 1 :]) for place, axis in enumerate(plan.layout.value)}
    recipe["item_step"] = steps["D" if plan.layout.is_volume else "N"]
    # No axis stands between rows and columns.
    recipe["channel_step"], recipe["pixel_step"] = steps["C"], steps["W"]
    channels = np.zeros(count, dtype=CHANNEL)
    for number, channel in enumerate(plan.channels):
        channels["offset"][number], channels["ops"][number] = channel.offset, len(channel.ops)
        for place, op in enumerate(channel.ops):
            channels["op"][number, place] = (op.kind.value, op.first, op.second)
    packed = np.concatenate([recipe.view(np.uint8), channels.view(np.uint8)])
    return np.pad(packed, (0, aligned(packed.nbytes) - packed.nbytes))


def pack_order(items: Sequence[Item], address_of: Callable[[int], int]) -> Bytes:
    """Lay out which pictures make which item.

    Args:
        items: Those wanted, and their neighbours.
        address_of: Returns where on the device a member's picture lies.
    """
    counts = [len(item.members) for item in items]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    members = np.zeros(int(starts[-1]), dtype=MEMBER)
    members["picture"] = [address_of(member) for item in items for member in item.members]
    members["weight"] = [weight for item in items for weight in item.weights]
    order = np.zeros(aligned(starts.nbytes) + aligned(members.nbytes), dtype=np.uint8)
    order[: starts.nbytes] = starts.view(np.uint8)
    order[aligned(starts.nbytes) :][: members.nbytes] = members.view(np.uint8)
    return order


def _flags(image: StoredImage, plan: FusedPlan, intercept: float) -> int:
    flags = SIGNED if image.pixels.dtype.kind == "i" else 0
    if is_exact_in_float32(image.pixels, image.slope, intercept):
        flags |= EXACT
    if plan.inverts and image.is_monochrome1:
        flags |= INVERTED
    return flags


def _put_fill(header: Record, plan: FusedPlan) -> None:
    """What lies beyond the image, and how it counts as 0 while a grid's sums are made."""
    if isinstance(plan.grid, Letterbox):
        header["empty"] = plan.grid.fill
    elif isinstance(plan.grid, ResampleInPlane):
        header["empty"] = plan.grid.fill
        if plan.grid.method != "nearest":
            header["shift"], header["added"] = plan.grid.fill - plan.minus, plan.grid.fill
