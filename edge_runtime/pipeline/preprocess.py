"""Stored pixels become the model's input: per slice on arrival, then per study.

``prepare_slice`` does everything that needs one slice only, so that it runs while images arrive;
``assemble_input`` orders the prepared slices along the normal and does the rest. HU are exact:
each slice's own slope and intercept (PS3.3 C.11.1), padding replaced before any averaging, row and
column spacing never exchanged. Pure functions, float32, one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.errors import PackageStepsError, PreprocessError
from edge_runtime.pipeline.geometry import SAME_POSITION_MM, Plane, plane_of, position_along_normal
from engines.package import (
    AverageSlabs,
    NeighbourSlabs,
    PreprocessStep,
    ResampleInPlane,
    Window,
    WindowChannels,
)

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
StoredPixels = npt.NDArray[np.integer[Any]]

# What PixelPaddingValue becomes when the steps name no value of their own: air.
DEFAULT_OUTSIDE_HU = -1000.0
# A slab less than this part full merges into its neighbour: rounding, not tissue.
SLAB_SLIVER = 1e-3
# Output cells whose weights are applied together: few enough that the blocks stay narrow.
BLOCK_CELLS = 8
STEP_ORDER = (ResampleInPlane, AverageSlabs, WindowChannels, NeighbourSlabs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSlice:
    """One slice, ready for ``assemble_input``."""

    hu: Float32
    """(rows, columns) Hounsfield units (or rescaled values), in canonical orientation."""
    position_mm: float | None
    """Along the canonical normal; None when the image has no position."""
    thickness_mm: float | None


def prepare_slice(
    pixels: StoredPixels, header: InstanceHeader, steps: Sequence[PreprocessStep]
) -> PreparedSlice:
    """Rescale, fill padding, turn to canonical orientation, and resample if the steps say so.

    Args:
        pixels: (rows, columns) stored values, as ``decode.read_pixels`` returns them.
        header: of the same instance.
        steps: the model package's; only a leading ``resample_in_plane`` is applied here.

    Returns:
        The slice: (steps' rows, columns), or the image's own size without ``resample_in_plane``.

    Raises:
        PreprocessError: pixels and header contradict each other, or spacing is missing.
    """
    if pixels.ndim != 2 or pixels.shape != (header.rows, header.columns):  # noqa: PLR2004 - (rows, columns)
        raise PreprocessError(
            ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED, "pixel array and Rows, Columns differ"
        )
    resample = _resample_step(steps)
    outside_hu = DEFAULT_OUTSIDE_HU if resample is None else resample.outside_hu
    plane = None if header.image_orientation is None else plane_of(header.image_orientation)
    hu = _above_outside(pixels, header, outside_hu)
    if resample is not None:
        hu = _area_average(hu, header, resample, transposed=plane is not None and plane.transpose)
    hu += np.float32(outside_hu)
    return PreparedSlice(
        hu=hu if plane is None else np.ascontiguousarray(_canonical(hu, plane)),
        position_mm=position_along_normal(header),
        thickness_mm=header.slice_thickness_mm,
    )


def assemble_input(slices: Sequence[PreparedSlice], steps: Sequence[PreprocessStep]) -> Float32:
    """Make the model's input of the prepared slices, in any order.

    Args:
        slices: at least one, all of one shape.
        steps: the same as given to ``prepare_slice``.

    Returns:
        (N, C, H, W), contiguous; N runs along the normal (axial: inferior to superior).

    Raises:
        PreprocessError: shapes differ, two slices share a position, or there are too many slabs.
        PackageStepsError: the steps' order has no meaning.
    """
    check_steps(steps)
    if not slices:
        raise PreprocessError(ReasonCode.NO_IMAGES, "no prepared slice")
    if len({item.hu.shape for item in slices}) > 1:
        raise PreprocessError(ReasonCode.INCONSISTENT_IMAGES, "prepared slices differ in shape")
    ordered = _ordered(slices)
    slabs = next((step for step in steps if isinstance(step, AverageSlabs)), None)
    values = np.stack([item.hu for item in ordered]) if slabs is None else _slabs(ordered, slabs)
    tensor = values[:, np.newaxis]
    for step in steps:
        if isinstance(step, WindowChannels):
            tensor = _windowed(values, step.windows)
        elif isinstance(step, NeighbourSlabs):
            tensor = _with_neighbours(tensor, step.radius)
    return np.ascontiguousarray(tensor)


def slab_faces(slices: Sequence[PreparedSlice], thickness_mm: float) -> tuple[Float64, Float64]:
    """Where slices and slabs begin and end along the normal.

    A slice reaches half-way to each neighbour; the outermost ones reach as far outwards as
    inwards. Slabs start at the first slice's outer face; the last one may be partly filled, so
    that nothing scanned is left out.

    Args:
        slices: ordered by position, positions distinct.
        thickness_mm: of a slab.

    Returns:
        Faces of the slices (number of slices + 1) and of the slabs (number of slabs + 1), mm.

    Raises:
        PreprocessError: a position is missing or occurs twice.
    """
    positions = _positions(slices)
    if len(positions) == 1:
        half = (slices[0].thickness_mm or thickness_mm) / 2
        faces = np.array([positions[0] - half, positions[0] + half])
    else:
        gaps = np.diff(positions)
        outer = (positions[0] - gaps[0] / 2, positions[-1] + gaps[-1] / 2)
        faces = np.concatenate([[outer[0]], positions[:-1] + gaps / 2, [outer[1]]])
    extent = float(faces[-1] - faces[0])
    count = max(1, math.ceil(extent / thickness_mm - SLAB_SLIVER))
    slab_edges = faces[0] + thickness_mm * np.arange(count + 1, dtype=np.float64)
    slab_edges[-1] = max(slab_edges[-1], faces[-1])
    return faces, slab_edges


def _resample_step(steps: Sequence[PreprocessStep]) -> ResampleInPlane | None:
    return next((step for step in steps if isinstance(step, ResampleInPlane)), None)


def check_steps(steps: Sequence[PreprocessStep]) -> None:
    """Refuse steps that this module would not carry out in the order written.

    Raises:
        PackageStepsError: a step occurs twice or stands before one that must precede it.
    """
    places = [STEP_ORDER.index(type(step)) for step in steps]
    if any(later <= earlier for earlier, later in pairwise(places)):
        raise PackageStepsError(
            "preprocessing steps must stand at most once each, in the order resample_in_plane, "
            "average_slabs, window_channels, neighbour_slabs: correct package.toml"
        )


def _above_outside(pixels: StoredPixels, header: InstanceHeader, outside_hu: float) -> Float32:
    """Rescaled values minus ``outside_hu``: what lies outside, and padding, is then exactly 0."""
    slope = 1.0 if header.rescale_slope is None else header.rescale_slope
    intercept = 0.0 if header.rescale_intercept is None else header.rescale_intercept
    if slope == 0 or not (math.isfinite(slope) and math.isfinite(intercept)):
        raise PreprocessError(
            ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED, "RescaleSlope or RescaleIntercept is unusable"
        )
    values = pixels.astype(np.float32)
    if slope != 1.0:
        values *= np.float32(slope)
    values += np.float32(intercept - outside_hu)
    if header.pixel_padding_value is not None:
        values[pixels == _as_stored(header.pixel_padding_value, pixels.dtype)] = 0.0
    return values


def _as_stored(value: int, dtype: np.dtype[np.integer[Any]]) -> np.integer[Any]:
    """Padding in the pixels' own type; writers confuse US and SS here (PS3.3 C.7.5.1.1.2)."""
    bits = dtype.itemsize * 8
    unsigned = np.array([value & ((1 << bits) - 1)], dtype=f"u{dtype.itemsize}")
    stored: np.integer[Any] = unsigned.view(dtype)[0]
    return stored


def _canonical(image: Float32, plane: Plane) -> Float32:
    if plane.transpose:
        image = image.T
    return image[:: -1 if plane.flip_rows else 1, :: -1 if plane.flip_columns else 1]


def _area_average(
    image: Float32, header: InstanceHeader, step: ResampleInPlane, *, transposed: bool
) -> Float32:
    """Average onto the step's grid; nothing (0) lies outside the image.

    The grid is centred on the image's centre, so flipping commutes with averaging and is left to
    the small result; for a transposed image the target is transposed too.
    """
    if header.pixel_spacing_mm is None or min(header.pixel_spacing_mm) <= 0:
        raise PreprocessError(ReasonCode.GEOMETRY_MISSING, "PixelSpacing is missing or not above 0")
    rows, columns = (step.columns, step.rows) if transposed else (step.rows, step.columns)
    row_spacing, column_spacing = header.pixel_spacing_mm
    between = np.empty((rows, image.shape[1]), dtype=np.float32)
    for cells, pixels, weights in _blocks(image.shape[0], row_spacing, rows, step.pixel_mm):
        np.matmul(weights, image[pixels], out=between[cells])
    averaged = np.empty((rows, columns), dtype=np.float32)
    for cells, pixels, weights in _blocks(image.shape[1], column_spacing, columns, step.pixel_mm):
        np.matmul(between[:, pixels], weights.T, out=averaged[:, cells])
    return averaged


@lru_cache(maxsize=64)
def _blocks(
    pixels: int, spacing_mm: float, cells: int, cell_mm: float
) -> tuple[tuple[slice, slice, Float32], ...]:
    """Which part of each cell each pixel covers, both grids sharing their centre.

    Returns:
        For each run of cells: the cells, the pixels that they touch, and the weights between them
        (cells, pixels). The full matrix is nearly empty, and its size would be the peer's choice.
    """
    cell_edges: Float64 = (np.arange(cells + 1, dtype=np.float64) - cells / 2) * cell_mm
    pixel_edges: Float64 = (np.arange(pixels + 1, dtype=np.float64) - pixels / 2) * spacing_mm
    blocks = []
    for start in range(0, cells, BLOCK_CELLS):
        edges = cell_edges[start : start + BLOCK_CELLS + 1]
        first, last = np.searchsorted(pixel_edges, (edges[0], edges[-1]))
        touched = slice(max(int(first) - 1, 0), min(int(last), pixels))
        weights = _overlap(edges, pixel_edges[touched.start : touched.stop + 1]) / cell_mm
        blocks.append((slice(start, start + len(edges) - 1), touched, weights.astype(np.float32)))
    return tuple(blocks)


def _overlap(targets: Float64, sources: Float64) -> Float64:
    """Length shared by each target interval and each source interval, given their edges."""
    upper = np.minimum(targets[1:, np.newaxis], sources[np.newaxis, 1:])
    lower = np.maximum(targets[:-1, np.newaxis], sources[np.newaxis, :-1])
    shared: Float64 = np.maximum(upper - lower, 0.0)
    return shared


def _ordered(slices: Sequence[PreparedSlice]) -> list[PreparedSlice]:
    """By position; images without any position keep their order."""
    if all(item.position_mm is None for item in slices):
        return list(slices)
    places = [
        (position, index)
        for index, position in enumerate(item.position_mm for item in slices)
        if position is not None
    ]
    if len(places) < len(slices):
        raise PreprocessError(ReasonCode.GEOMETRY_MISSING, "some slices have no position")
    return [slices[index] for _, index in sorted(places)]


def _positions(slices: Sequence[PreparedSlice]) -> Float64:
    if any(item.position_mm is None for item in slices):
        raise PreprocessError(ReasonCode.GEOMETRY_MISSING, "averaging slabs needs slice positions")
    positions = np.array([item.position_mm for item in slices], dtype=np.float64)
    if (np.diff(positions) <= SAME_POSITION_MM).any():
        raise PreprocessError(ReasonCode.DUPLICATE_POSITIONS, "two slices lie at one position")
    return positions


def _slabs(slices: Sequence[PreparedSlice], step: AverageSlabs) -> Float32:
    """(slabs, rows, columns): mean of the slices weighted by their overlap with each slab."""
    faces, slab_edges = slab_faces(slices, step.thickness_mm)
    count = len(slab_edges) - 1
    if count > step.max_slabs:
        raise PreprocessError(
            ReasonCode.COVERAGE_OUT_OF_RANGE, f"{count} slabs, at most {step.max_slabs} allowed"
        )
    overlap = _overlap(slab_edges, faces)
    weights = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    averaged = np.zeros((count, *slices[0].hu.shape), dtype=np.float32)
    scratch = np.empty_like(slices[0].hu)
    # Slice by slice: a stack of all of them would double the memory of a long series.
    for slab, index in np.argwhere(weights > 0):
        np.multiply(slices[index].hu, weights[slab, index], out=scratch)
        averaged[slab] += scratch
    return averaged


def _windowed(values: Float32, windows: Sequence[Window]) -> Float32:
    """(N, windows, H, W) in 0 to 1."""
    channels = np.empty((values.shape[0], len(windows), *values.shape[1:]), dtype=np.float32)
    for index, window in enumerate(windows):
        channel = channels[:, index]
        np.subtract(values, np.float32(window.low), out=channel)
        channel *= np.float32(1.0 / (window.high - window.low))
        np.clip(channel, 0.0, 1.0, out=channel)
    return channels


def _with_neighbours(tensor: Float32, radius: int) -> Float32:
    """(N, (2 radius + 1) C, H, W); the outermost slab repeats beyond the ends."""
    count, channels, rows, columns = tensor.shape
    offsets = np.arange(-radius, radius + 1)
    wanted = np.clip(np.arange(count)[:, np.newaxis] + offsets, 0, count - 1)
    stacked: Float32 = tensor[wanted].reshape(count, len(offsets) * channels, rows, columns)
    return stacked
