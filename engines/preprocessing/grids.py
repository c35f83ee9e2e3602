"""Pictures and stacks on new grids: to a spacing, to a size, into a frame.

Old and new grid share their centre, so that turning an image over and resampling it may change
places. Resampling is separable: along each axis a few weights for each new cell. They are kept in
blocks of neighbouring cells, because the full matrix is nearly empty, and its size would be the
peer's choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.values import Float32, Float64, Mask, Picture, Stack
from engines.steps import Letterbox, Method, ResampleInPlane, ResampleStack, Resize

# Cells whose weights are applied together: few enough that the blocks stay narrow.
BLOCK_CELLS = 8
# Cells along one axis; a grid of so many is a mistake, even where the others have few.
LARGEST_SIDE = 16_384
# Pixels; rounding must not decide what is nearest, or whether a centre lies outside.
ROUNDING = 1e-9

Block: TypeAlias = tuple[slice, slice, Float32]
"""A run of cells, the pixels that they touch, and the weights between them (cells, pixels)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of an old grid and of the new one; both have the same centre."""

    pixels: int
    spacing: float
    """Between old pixels."""
    cells: int
    cell: float
    """Between new ones, in the same unit."""
    repeats_edge: bool
    """Beyond the old grid lies its outermost pixel; else 0."""


def resample_in_plane(picture: Picture, step: ResampleInPlane) -> Picture:
    """Onto the step's grid of square pixels about the image's centre.

    Raises:
        UnfitImagesError: GEOMETRY_MISSING: the image has no usable pixel spacing.
    """
    rows, columns = axes_in_plane(picture, step)
    values = _on_plane(picture.values, rows, columns, step.method, fill=step.fill - picture.minus)
    if picture.minus:
        values += np.float32(picture.minus)
    return replace(
        picture,
        values=values,
        minus=0.0,
        padding=None,
        spacing_mm=(step.pixel_mm, step.pixel_mm),
    )


def axes_in_plane(picture: Picture, step: ResampleInPlane) -> tuple[Axis, Axis]:
    """Rows and columns of the picture and of the step's grid.

    Raises:
        UnfitImagesError: GEOMETRY_MISSING: the image has no usable pixel spacing.
    """
    if picture.spacing_mm is None:
        raise UnfitImagesError(
            ImageFault.GEOMETRY_MISSING, "PixelSpacing is missing or is no usable number"
        )
    size = zip(picture.values.shape, picture.spacing_mm, (step.rows, step.columns), strict=True)
    rows, columns = (
        Axis(pixels=pixels, spacing=mm, cells=cells, cell=step.pixel_mm, repeats_edge=False)
        for pixels, mm, cells in size
    )
    return rows, columns


def resize(picture: Picture, step: Resize) -> Picture:
    """Stretches to the step's size."""
    values = _stretched(picture.values, step.rows, step.columns, step.method)
    return replace(
        picture, values=values, padding=None, spacing_mm=new_spacing(picture, values.shape)
    )


def letterbox(picture: Picture, step: Letterbox) -> Picture:
    """The largest picture of the same proportions in the middle of the step's frame."""
    rows, columns = largest_inside(picture, step)
    top, left = (step.rows - rows) // 2, (step.columns - columns) // 2
    framed = np.full((step.rows, step.columns), step.fill, dtype=np.float32)
    framed[top : top + rows, left : left + columns] = _stretched(
        picture.values, rows, columns, step.method
    )
    return replace(
        picture, values=framed, padding=None, spacing_mm=new_spacing(picture, (rows, columns))
    )


def resample_stack(stack: Stack, step: ResampleStack) -> Stack:
    """To the step's spacing about the same middle, or to its shape over the same extent.

    Raises:
        UnfitImagesError: GEOMETRY_MISSING: a spacing is not known. TOO_LARGE: more voxels than
            the step allows.
    """
    axes = _axes_of_shape(stack, step.shape) if step.shape else _axes_of_spacing(stack, step)
    voxels = math.prod(axis.cells for axis in axes)
    if voxels > step.max_voxels or max(axis.cells for axis in axes) > LARGEST_SIDE:
        raise UnfitImagesError(
            ImageFault.TOO_LARGE,
            f"{voxels} voxels on the new grid, the model package allows at most {step.max_voxels}",
        )
    spacing = step.spacing_mm
    if spacing is None and stack.spacing_mm is not None:
        sizes = zip(stack.spacing_mm, axes, strict=True)
        spacing = _three(mm * axis.pixels / axis.cells for mm, axis in sizes)
    return Stack(values=_in_space(stack.values, axes, step.method), spacing_mm=spacing)


def new_spacing(picture: Picture, shape: Sequence[int]) -> tuple[float, float] | None:
    """Between rows and columns, once the picture is stretched to a shape."""
    if picture.spacing_mm is None:
        return None
    (row_mm, column_mm), (rows, columns) = picture.spacing_mm, picture.values.shape
    return row_mm * rows / shape[0], column_mm * columns / shape[1]


def largest_inside(picture: Picture, step: Letterbox) -> tuple[int, int]:
    """Rows and columns of the largest picture of the same proportions in the step's frame."""
    row_mm, column_mm = picture.spacing_mm or (1.0, 1.0)
    height, width = picture.values.shape[0] * row_mm, picture.values.shape[1] * column_mm
    scale = min(step.rows / height, step.columns / width)
    rows, columns = (math.floor(side * scale + 0.5) for side in (height, width))
    return min(max(rows, 1), step.rows), min(max(columns, 1), step.columns)


def _three(numbers: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = numbers
    return first, second, third


def _axes_of_shape(stack: Stack, shape: Sequence[int]) -> list[Axis]:
    sizes = zip(stack.values.shape, shape, strict=True)
    return [stretch(pixels, cells) for pixels, cells in sizes]


def _axes_of_spacing(stack: Stack, step: ResampleStack) -> list[Axis]:
    if stack.spacing_mm is None or step.spacing_mm is None:
        raise UnfitImagesError(
            ImageFault.GEOMETRY_MISSING, "resampling a stack to a spacing needs the one it has"
        )
    sizes = zip(stack.values.shape, stack.spacing_mm, step.spacing_mm, strict=True)
    return [
        Axis(
            pixels=pixels,
            spacing=old_mm,
            cells=max(1, math.floor(pixels * old_mm / new_mm + 0.5)),
            cell=new_mm,
            repeats_edge=True,
        )
        for pixels, old_mm, new_mm in sizes
    ]


def stretch(pixels: int, cells: int) -> Axis:
    """As many cells over the same extent."""
    return Axis(pixels=pixels, spacing=1.0, cells=cells, cell=pixels / cells, repeats_edge=True)


def _stretched(values: Float32, rows: int, columns: int, method: Method) -> Float32:
    height, width = values.shape
    return _on_plane(values, stretch(height, rows), stretch(width, columns), method)


def _on_plane(
    values: Float32, rows: Axis, columns: Axis, method: Method, *, fill: float = 0.0
) -> Float32:
    """(rows, columns) of the new grid, in memory of its own."""
    if method == "nearest":
        return _nearest(values, (rows, columns), fill)
    if not fill:
        return _weighted(values, rows, columns, method)
    # What lies beyond counts as 0, and so must the same value inside.
    plane = _weighted(values - np.float32(fill), rows, columns, method)
    plane += np.float32(fill)
    return plane


def _weighted(values: Float32, rows: Axis, columns: Axis, method: Method) -> Float32:
    if abs(values.strides[0]) < abs(values.strides[1]):
        # The first product is the larger one; it shall run along memory.
        return _weighted(values.T, columns, rows, method).T
    # And forwards, as only such matrices are multiplied fast: the weights are the same either way.
    turned = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in values.strides)
    values = values[turned]
    between = np.empty((rows.cells, columns.pixels), dtype=np.float32)
    for cells, pixels, weights in blocks_of(rows, method):
        np.matmul(weights, values[pixels], out=between[cells])
    plane = np.empty((rows.cells, columns.cells), dtype=np.float32)
    for cells, pixels, weights in blocks_of(columns, method):
        np.matmul(between[:, pixels], weights.T, out=plane[:, cells])
    return plane[turned]


def _in_space(values: Float32, axes: Sequence[Axis], method: Method) -> Float32:
    if method == "nearest":
        return _nearest(values, axes, fill=0.0)
    slices, rows, columns = axes
    # Whichever order has the smaller stack between the two.
    if slices.cells <= slices.pixels:
        values = _along_slices(values, slices, method)
    planes = np.empty((len(values), rows.cells, columns.cells), dtype=np.float32)
    for index, plane in enumerate(values):
        planes[index] = _on_plane(plane, rows, columns, method)
    return planes if slices.cells <= slices.pixels else _along_slices(planes, slices, method)


def _along_slices(values: Float32, axis: Axis, method: Method) -> Float32:
    flat = np.ascontiguousarray(values).reshape(axis.pixels, -1)
    new = np.empty((axis.cells, flat.shape[1]), dtype=np.float32)
    for cells, pixels, weights in blocks_of(axis, method):
        np.matmul(weights, flat[pixels], out=new[cells])
    return new.reshape(axis.cells, *values.shape[1:])


def _nearest(values: Float32, axes: Sequence[Axis], fill: float) -> Float32:
    places, inside = zip(*map(nearest_pixels, axes), strict=True)
    new: Float32 = values[np.ix_(*places)]
    for number, is_inside in enumerate(inside):
        if not is_inside.all():
            np.moveaxis(new, number, 0)[~is_inside] = np.float32(fill)
    return new


@lru_cache(maxsize=64)
def nearest_pixels(axis: Axis) -> tuple[npt.NDArray[np.intp], Mask]:
    """For each cell the pixel whose centre is nearest, and whether that is on the old grid."""
    places, is_inside = _places(axis, np.arange(axis.cells))
    return np.floor(places + 0.5 + ROUNDING).clip(0, axis.pixels - 1).astype(np.intp), is_inside


@lru_cache(maxsize=64)
def blocks_of(axis: Axis, method: Method) -> tuple[Block, ...]:
    """What each pixel weighs in each cell, by ``area`` or ``linear``."""
    weigh = _area_block if method == "area" else _linear_block
    starts = range(0, axis.cells, BLOCK_CELLS)
    return tuple(weigh(axis, start, min(start + BLOCK_CELLS, axis.cells)) for start in starts)


def _area_block(axis: Axis, start: int, stop: int) -> Block:
    """Which part of each cell each pixel covers."""
    cell_edges: Float64 = _centred(axis.cells, axis.cell)[start : stop + 1]
    pixel_edges: Float64 = _centred(axis.pixels, axis.spacing)
    first, last = np.searchsorted(pixel_edges, (cell_edges[0], cell_edges[-1]))
    touched = slice(max(int(first) - 1, 0), min(int(last), axis.pixels))
    edges = pixel_edges[touched.start : touched.stop + 1]
    upper = np.minimum(cell_edges[1:, np.newaxis], edges[np.newaxis, 1:])
    lower = np.maximum(cell_edges[:-1, np.newaxis], edges[np.newaxis, :-1])
    shared = np.maximum(upper - lower, 0.0)
    shared /= shared.sum(axis=1, keepdims=True) if axis.repeats_edge else axis.cell
    return slice(start, stop), touched, shared.astype(np.float32)


def _centred(count: int, size: float) -> Float64:
    """Edges of that many intervals about 0."""
    edges: Float64 = (np.arange(count + 1, dtype=np.float64) - count / 2) * size
    return edges


def _linear_block(axis: Axis, start: int, stop: int) -> Block:
    """How near the centre of each cell lies to the two nearest centres of pixels."""
    places, is_inside = _places(axis, np.arange(start, stop))
    places = places.clip(0, axis.pixels - 1)
    low = np.floor(places).astype(np.intp)
    high = np.minimum(low + 1, axis.pixels - 1)
    touched = slice(int(low[0]), int(high[-1]) + 1)
    weights = np.zeros((stop - start, touched.stop - touched.start), dtype=np.float64)
    cells = np.arange(stop - start)
    weights[cells, high - touched.start] = places - low
    weights[cells, low - touched.start] += 1 - (places - low)
    weights[~is_inside] = 0.0
    return slice(start, stop), touched, weights.astype(np.float32)


def _places(axis: Axis, cells: npt.NDArray[np.intp]) -> tuple[Float64, Mask]:
    """Where the centres of cells lie, counted in pixels, and whether that is on the old grid."""
    middle = (axis.pixels - 1) / 2
    from_middle = cells.astype(np.float64) - (axis.cells - 1) / 2
    places: Float64 = from_middle * (axis.cell / axis.spacing) + middle
    if axis.repeats_edge:
        return places, np.ones(len(cells), dtype=np.bool_)
    return places, np.abs(places - middle) <= axis.pixels / 2 + ROUNDING
