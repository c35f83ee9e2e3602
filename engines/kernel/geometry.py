"""Where the pixels of an image go: what its size, spacing and turn say, whatever its values are.

Of one series all images have the same; it is worked out once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engines.kernel.fusing import Grid
from engines.kernel.layout import NO_VALUES, SLICE, STORED_BYTES, Bytes, Record, aligned
from engines.preprocessing.grids import (
    Axis,
    axes_in_plane,
    blocks_of,
    largest_inside,
    nearest_pixels,
    new_spacing,
    stretch,
)
from engines.preprocessing.orientation import canonical_orientation
from engines.preprocessing.values import Float32, Picture, Turn
from engines.steps import CanonicalOrientation, Letterbox, Method, ResampleInPlane

Int32: TypeAlias = npt.NDArray[np.int32]

_TURN = CanonicalOrientation(step="canonical_orientation")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """For each cell along one stored axis: its first pixel, and where its weights start."""

    first: Int32
    start: Int32
    """One more than cells: the last is the end."""
    weights: Float32

    def packed(self) -> Bytes:
        """As it lies in a slot."""
        parts = (self.first, self.start, self.weights)
        return np.concatenate([part.view(np.uint8) for part in parts])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Geometry:
    """How a slot begins, and what is known of the picture."""

    prefix: Bytes
    """Header and tables, up to the pixels; what the values decide is yet to be filled in."""
    row_table: Table
    column_table: Table
    nbytes: int
    """Of the whole slot."""
    values: Float32
    """As large as the picture, and no memory."""
    spacing_mm: tuple[float, float] | None
    """Of the picture."""


@lru_cache(maxsize=32)
def geometry_of(
    grid: Grid, shape: tuple[int, int], spacing_mm: tuple[float, float] | None, turn: Turn
) -> Geometry:
    """Work out the geometry of images.

    Args:
        grid: The step that makes their pictures.
        shape: Stored rows and columns.
        spacing_mm: Between them.
        turn: By which the pictures are turned.

    Raises:
        UnfitImagesError: GEOMETRY_MISSING: the grid needs a spacing, and there is none.
    """
    stored = Picture(
        values=np.broadcast_to(NO_VALUES, shape),
        extremes=(0.0, 0.0),
        spacing_mm=spacing_mm,
        turn=turn,
    )
    rows, columns, known_mm = _tables(canonical_orientation(stored, _TURN), grid, turn)
    row_table, column_table = (columns, rows) if turn.transpose else (rows, columns)
    header = np.zeros(1, dtype=SLICE)
    _put_places(header, grid, turn)
    header["columns"] = shape[1]
    header["row_cells"], header["column_cells"] = len(row_table.first), len(column_table.first)
    tables = row_table.packed(), column_table.packed()
    header["row_table"] = SLICE.itemsize
    header["column_table"] = SLICE.itemsize + tables[0].nbytes
    prefix = np.zeros(aligned(SLICE.itemsize + sum(each.nbytes for each in tables)), dtype=np.uint8)
    header["pixels"] = prefix.nbytes
    filled = np.concatenate([header.view(np.uint8), *tables])
    prefix[: filled.nbytes] = filled
    prefix.setflags(write=False)  # of all images that share it
    return Geometry(
        prefix=prefix,
        row_table=row_table,
        column_table=column_table,
        nbytes=aligned(prefix.nbytes + shape[0] * shape[1] * STORED_BYTES),
        values=np.broadcast_to(NO_VALUES, (grid.rows, grid.columns)),
        spacing_mm=known_mm,
    )


def _tables(
    shown: Picture, grid: Grid, turn: Turn
) -> tuple[Table, Table, tuple[float, float] | None]:
    """Tables of the turned image's rows and columns, and the picture's spacing."""
    frame = (grid.rows, grid.columns)
    if isinstance(grid, ResampleInPlane):
        rows, columns = axes_in_plane(shown, grid)
        before = (0, 0)
        spacing: tuple[float, float] | None = (grid.pixel_mm, grid.pixel_mm)
    else:
        size = largest_inside(shown, grid) if isinstance(grid, Letterbox) else frame
        rows, columns = (stretch(*each) for each in zip(shown.values.shape, size, strict=True))
        spacing = new_spacing(shown, size)
        before = ((frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2)
    flips = (turn.flip_rows, turn.flip_columns)
    tables = [
        _table(axis, grid.method, cells, ahead, is_flipped=is_flipped)
        for axis, cells, ahead, is_flipped in zip(
            (rows, columns), frame, before, flips, strict=True
        )
    ]
    return tables[0], tables[1], spacing


def _put_places(header: Record, grid: Grid, turn: Turn) -> None:
    """Where cells along stored rows and columns lie in the picture, which is turned."""
    rows, columns = grid.rows, grid.columns
    first = (rows - 1) * columns if turn.flip_rows else 0
    first += columns - 1 if turn.flip_columns else 0
    down = -columns if turn.flip_rows else columns
    across = -1 if turn.flip_columns else 1
    header["first_place"] = first
    header["row_step"], header["column_step"] = (across, down) if turn.transpose else (down, across)


def _table(axis: Axis, method: Method, cells: int, before: int, *, is_flipped: bool) -> Table:
    """The weights of an axis, in stored order, with empty cells around those of its own."""
    after = cells - axis.cells - before
    if is_flipped:
        before, after = after, before
    if method == "nearest":
        first, counts, weights = _nearest_taps(axis, is_flipped=is_flipped)
    else:
        # The same either way.
        first, counts, weights = _taps(axis, method)
    counts = np.pad(counts, (before, after))
    return Table(
        first=np.pad(first, (before, after)).astype(np.int32),
        start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        weights=weights,
    )


def _nearest_taps(axis: Axis, *, is_flipped: bool) -> tuple[Int32, Int32, Float32]:
    """As ``_taps``; of two pixels equally near it is the later one, once the image is turned."""
    places, is_inside = nearest_pixels(axis)
    if is_flipped:
        places, is_inside = axis.pixels - 1 - places[::-1], is_inside[::-1]
    counts = is_inside.astype(np.int32)
    return places.astype(np.int32), counts, np.ones(int(counts.sum()), dtype=np.float32)


def _taps(axis: Axis, method: Method) -> tuple[Int32, Int32, Float32]:
    """For each cell its first pixel, its number of pixels, and all of their weights."""
    first = np.zeros(axis.cells, dtype=np.int32)
    counts = np.zeros(axis.cells, dtype=np.int32)
    weights: list[Float32] = []
    for cells, pixels, block in blocks_of(axis, method):
        for cell, row in zip(range(cells.start, cells.stop), block, strict=True):
            used = np.flatnonzero(row)
            if len(used):
                first[cell], counts[cell] = pixels.start + used[0], used[-1] - used[0] + 1
                weights.append(row[used[0] : used[-1] + 1])
    return first, counts, np.concatenate([np.zeros(0, dtype=np.float32), *weights])
