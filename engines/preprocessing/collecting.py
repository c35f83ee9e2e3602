"""Which images make which item of the model's input, and with which weights.

Everything here follows from positions alone, so that it is known before, and apart from, the
values. An item's members are indices into the series ordered along the normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.rescaling import usable_position
from engines.preprocessing.values import Float32, Float64, Picture
from engines.steps import AverageSlabs, EachImage, StackSlices

# Pixel spacing is written as a decimal string of at most 16 characters.
SPACING_TOLERANCE = 1e-4
# Two slices nearer than this lie at one position.
SAME_POSITION_MM = 1e-2
# A slab at an end less than this part full merges into its neighbour: rounding, not tissue.
SLAB_SLIVER = 1e-3
# Of the median gap between slices; beyond, one is missing, and a stack would lie about where things
# are. The gate of a package (max_spacing_deviation) can be no wider.
UNEVEN_GAPS = 0.5 + 1e-6
# Of a slab; less of a slice in it is rounding of the positions.
SLICE_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image, slice or slab of the model's input."""

    index: int
    """On the grid that the step lays along the normal: 0, 1, ... of the series, or for slabs of
    the patient's coordinates, k where the slab begins at k times the thickness."""
    members: tuple[int, ...]
    """Pictures of the ordered series, ascending."""
    weights: tuple[float, ...]
    """Of the members; their sum is 1."""


def order_pictures(pictures: Sequence[Picture]) -> tuple[int, ...]:
    """Indices by position along the normal; as given where no picture has one.

    Raises:
        UnfitImagesError: GEOMETRY_MISSING: only some pictures have a position.
    """
    places = [
        (picture.position_mm, index)
        for index, picture in enumerate(pictures)
        if picture.position_mm is not None
    ]
    if not places:
        return tuple(range(len(pictures)))
    if len(places) < len(pictures):
        raise _position_missing()
    return tuple(index for _, index in sorted(places))


def each_image(
    positions_mm: Sequence[float | None], _thicknesses_mm: Sequence[float | None], step: EachImage
) -> tuple[Item, ...]:
    """Every image is an item.

    Raises:
        UnfitImagesError: TOO_LARGE.
    """
    return _singles(len(positions_mm), step.max_images, "images")


def stack_slices(
    positions_mm: Sequence[float | None], _thicknesses_mm: Sequence[float | None], step: StackSlices
) -> tuple[Item, ...]:
    """Every slice is an item.

    Raises:
        UnfitImagesError: GEOMETRY_MISSING, DUPLICATE_POSITIONS, INCONSISTENT: a slice is missing
            between others, or TOO_LARGE.
    """
    positions = _distinct(positions_mm)
    gaps = np.diff(positions)
    if len(gaps) and np.abs(gaps / np.median(gaps) - 1).max() > UNEVEN_GAPS:
        raise UnfitImagesError(ImageFault.INCONSISTENT, "slices are missing between others")
    return _singles(len(positions), step.max_slices, "slices")


def average_slabs(
    positions_mm: Sequence[float | None],
    thicknesses_mm: Sequence[float | None],
    step: AverageSlabs,
) -> tuple[Item, ...]:
    """Slabs of equal thickness, of the slices that reach into them.

    In the patient's coordinates a slab stays as it is, whatever is added further out, once the
    middle between the two outermost slices lies beyond it by more than a sliver.

    Raises:
        UnfitImagesError: GEOMETRY_MISSING, DUPLICATE_POSITIONS, or TOO_LARGE.
    """
    faces = slice_faces(_distinct(positions_mm), thicknesses_mm[0] or 0.0, step.thickness_mm)
    lay = _slabs_from_first if step.origin == "first_slice" else _slabs_of_patient
    first, edges = lay(faces, step)
    return tuple(
        _slab(first + number, (float(start), float(stop)), faces)
        for number, (start, stop) in enumerate(pairwise(edges))
    )


def slice_faces(positions: Float64, thickness_mm: float, default_mm: float) -> Float64:
    """Where slices begin and end along the normal, in mm (number of slices + 1).

    A slice reaches half-way to each neighbour, the outermost ones as far outwards as inwards. A
    single slice is as thick as its header says, else as the default.
    """
    if len(positions) == 1:
        half = (thickness_mm if 0 < thickness_mm < math.inf else default_mm) / 2
        return np.array([positions[0] - half, positions[0] + half])
    gaps = np.diff(positions)
    outer = (positions[0] - gaps[0] / 2, positions[-1] + gaps[-1] / 2)
    return np.concatenate([[outer[0]], positions[:-1] + gaps / 2, [outer[1]]])


def average_item(pictures: Sequence[Picture] | Mapping[int, Picture], item: Item) -> Float32:
    """(rows, columns): the weighted mean of the item's members; a single one is not copied.

    Args:
        pictures: by member.
        item: whose mean is wanted.

    Raises:
        UnfitImagesError: INCONSISTENT: the members differ in size or spacing.
    """
    first = pictures[item.members[0]]
    if len(item.members) == 1:
        return first.values
    mean = first.values * np.float32(item.weights[0])
    scratch = np.empty_like(mean)
    for member, weight in zip(item.members[1:], item.weights[1:], strict=True):
        check_alike(first, pictures[member])
        np.multiply(pictures[member].values, np.float32(weight), out=scratch)
        mean += scratch
    return mean


def check_alike(one: Picture, other: Picture) -> None:
    """Two pictures may lie in one stack.

    Raises:
        UnfitImagesError: INCONSISTENT: they differ in size or spacing.
    """
    if one.values.shape != other.values.shape:
        raise UnfitImagesError(ImageFault.INCONSISTENT, "images of one stack differ in size")
    if one.spacing_mm is None or other.spacing_mm is None:
        is_same = one.spacing_mm is other.spacing_mm
    else:
        is_same = all(
            math.isclose(*pair, rel_tol=SPACING_TOLERANCE)
            for pair in zip(one.spacing_mm, other.spacing_mm, strict=True)
        )
    if not is_same:
        raise UnfitImagesError(ImageFault.INCONSISTENT, "images of one stack differ in spacing")


def _singles(count: int, limit: int, what: str) -> tuple[Item, ...]:
    _check_count(count, limit, what)
    return tuple(Item(index=index, members=(index,), weights=(1.0,)) for index in range(count))


def _check_count(count: int, limit: int, what: str) -> None:
    if not count:
        raise UnfitImagesError(ImageFault.NO_IMAGES, "there is no image")
    if count > limit:
        raise UnfitImagesError(
            ImageFault.TOO_LARGE, f"{count} {what}, the model package allows at most {limit}"
        )


def _position_missing() -> UnfitImagesError:
    return UnfitImagesError(
        ImageFault.GEOMETRY_MISSING,
        "ImagePositionPatient or ImageOrientationPatient is missing, or is no usable number",
    )


def _distinct(positions_mm: Sequence[float | None]) -> Float64:
    usable = map(usable_position, positions_mm)
    known = [position for position in usable if position is not None]
    if len(known) < len(positions_mm):
        raise _position_missing()
    positions = np.array(known, dtype=np.float64)
    if not len(positions):
        raise UnfitImagesError(ImageFault.NO_IMAGES, "there is no image")
    if (np.diff(positions) <= SAME_POSITION_MM).any():
        raise UnfitImagesError(
            ImageFault.DUPLICATE_POSITIONS, "two images lie at one position: send one series only"
        )
    return positions


def _slabs_from_first(faces: Float64, step: AverageSlabs) -> tuple[int, Float64]:
    """From the first slice's outer face on; the last slab may be partly filled."""
    extent = float(faces[-1] - faces[0])
    count = max(1, math.ceil(extent / step.thickness_mm - SLAB_SLIVER))
    _check_count(count, step.max_slabs, "slabs")
    edges = faces[0] + step.thickness_mm * np.arange(count + 1, dtype=np.float64)
    edges[-1] = max(edges[-1], faces[-1])
    return 0, edges


def _slabs_of_patient(faces: Float64, step: AverageSlabs) -> tuple[int, Float64]:
    """At multiples of the thickness; both ends may be partly filled."""
    low, high = float(faces[0]) / step.thickness_mm, float(faces[-1]) / step.thickness_mm
    first = math.floor(low + SLAB_SLIVER)
    end = max(math.ceil(high - SLAB_SLIVER), first + 1)
    _check_count(end - first, step.max_slabs, "slabs")
    edges = step.thickness_mm * np.arange(first, end + 1, dtype=np.float64)
    edges[0], edges[-1] = min(edges[0], faces[0]), max(edges[-1], faces[-1])
    return first, edges


def _slab(index: int, edges: tuple[float, float], faces: Float64) -> Item:
    start, stop = edges
    low = max(int(np.searchsorted(faces, start, side="right")) - 1, 0)
    high = min(int(np.searchsorted(faces, stop, side="left")), len(faces) - 1)
    shares = np.minimum(faces[low + 1 : high + 1], stop) - np.maximum(faces[low:high], start)
    kept = np.flatnonzero(shares > SLICE_ROUNDING * (stop - start))
    weights = shares[kept] / shares[kept].sum()
    return Item(
        index=index,
        members=tuple(int(low + place) for place in kept),
        weights=tuple(float(weight) for weight in weights),
    )
