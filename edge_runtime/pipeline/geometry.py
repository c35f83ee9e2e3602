"""Where slices lie: order along the normal, spacing, gaps, tilt, affine.

Everything is millimetres in the patient's LPS coordinates (x to the left, y to posterior, z to
superior: PS3.3 C.7.6.2.1.1). The normal always points to the larger coordinate of its dominant
axis, so that axial slices are ordered from inferior to superior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dicom_node.instance import InstanceHeader, Vector3, Vector6

Float64 = npt.NDArray[np.float64]

# Direction cosines are written with 6 or more digits; 1e-3 is 0.06 degrees.
COSINE_TOLERANCE = 1e-3
# Two slices nearer than this lie at one position.
SAME_POSITION_MM = 1e-2
# Pixel spacing is written as a decimal string of at most 16 characters.
SPACING_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Orientation of one image plane."""

    row_direction: Vector3
    """Unit vector of increasing column index."""
    column_direction: Vector3
    """Unit vector of increasing row index."""
    normal: Vector3
    """Unit vector, positive along its dominant axis."""
    obliquity_deg: float
    """Angle between the normal and its dominant patient axis."""
    axis: int
    """Dominant axis of the normal: 0 sagittal, 1 coronal, 2 axial."""
    transpose: bool
    """Rows and columns must be exchanged to reach the canonical orientation ..."""
    flip_rows: bool
    """... then the order of rows reversed ..."""
    flip_columns: bool
    """... and that of columns."""


@lru_cache(maxsize=256)
def plane_of(orientation: Vector6) -> Plane | None:
    """Measure an ImageOrientationPatient (PS3.3 C.7.6.2.1.1).

    The canonical orientation shows the patient as a radiologist expects: axial columns run to the
    patient's left and rows to posterior; coronal and sagittal rows run to the feet.

    Args:
        orientation: the six direction cosines.

    Returns:
        The plane, or None when the cosines are not two perpendicular unit vectors.
    """
    row = np.array(orientation[:3], dtype=np.float64)
    column = np.array(orientation[3:], dtype=np.float64)
    if not _is_orthonormal(row, column):
        return None
    normal: Float64 = np.cross(row, column).astype(np.float64)
    normal /= np.linalg.norm(normal)
    axis = int(np.argmax(np.abs(normal)))
    if normal[axis] < 0:
        normal = -normal
    horizontal, vertical = ((1, 2), (0, 2), (0, 1))[axis]
    straight = abs(row[horizontal]) + abs(column[vertical])
    crossed = abs(row[vertical]) + abs(column[horizontal])
    transpose = bool(crossed > straight)
    along_columns, along_rows = (column, row) if transpose else (row, column)
    # Rows run to posterior (+y) when axial, else to the feet (-z).
    down = 1.0 if vertical == 1 else -1.0
    return Plane(
        row_direction=_vector3(row),
        column_direction=_vector3(column),
        normal=_vector3(normal),
        obliquity_deg=math.degrees(math.acos(min(1.0, float(normal[axis])))),
        axis=axis,
        transpose=transpose,
        flip_rows=bool(along_rows[vertical] * down < 0),
        flip_columns=bool(along_columns[horizontal] < 0),
    )


def position_along_normal(header: InstanceHeader) -> float | None:
    """Signed distance in mm of the slice's plane from the origin; None without geometry."""
    if header.image_position_mm is None or header.image_orientation is None:
        return None
    plane = plane_of(header.image_orientation)
    if plane is None:
        return None
    return sum(p * n for p, n in zip(header.image_position_mm, plane.normal, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class StackGeometry:
    """How the slices of one series lie to each other; measured, not judged."""

    order: tuple[int, ...]
    """Indexes of the headers, ordered along the normal."""
    positions_mm: tuple[float, ...]
    """Along the normal, ascending."""
    plane: Plane
    """Of the first slice."""
    origin_mm: Vector3
    """Centre of the first pixel of the first slice."""
    slice_step_mm: Vector3
    """Mean displacement from one slice to the next; zero for a single slice."""
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float]
    """Between rows, between columns (PS3.3 10.7.1.1)."""
    is_parallel: bool
    """Every slice has the first one's orientation."""
    is_one_grid: bool
    """Every slice has the first one's size, pixel spacing and frame of reference."""
    duplicate_positions: int
    """How many slices lie where another one lies."""
    spacing_mm: float | None
    """Median gap between neighbours that do not coincide; None for fewer than two positions."""
    max_gap_deviation: float
    """Largest difference of such a gap from the median, as a fraction of it."""
    tilt_deg: float
    """Angle between the normal and the direction in which the slices are stacked."""
    lateral_jump_mm: float
    """Largest sideways step between neighbours, beyond the steady one of a tilt."""

    @property
    def affine(self) -> Float64:
        """(4, 4) from (column, row, slice, 1) to LPS millimetres.

        A column step follows the row direction by the spacing between columns, and the reverse:
        the two spacings are not interchangeable.
        """
        row_spacing, column_spacing = self.pixel_spacing_mm
        matrix = np.eye(4, dtype=np.float64)
        matrix[:3, 0] = np.array(self.plane.row_direction) * column_spacing
        matrix[:3, 1] = np.array(self.plane.column_direction) * row_spacing
        matrix[:3, 2] = self.slice_step_mm
        matrix[:3, 3] = self.origin_mm
        return matrix


def measure_stack(headers: Sequence[InstanceHeader]) -> StackGeometry | None:
    """Measure how slices lie to each other.

    Args:
        headers: of one series, at least one, in any order.

    Returns:
        The measurements, or None when any header lacks usable position, orientation, pixel
        spacing or size.
    """
    if not all(_has_geometry(header) for header in headers):
        return None
    first = headers[0]
    plane = None if first.image_orientation is None else plane_of(first.image_orientation)
    if plane is None or first.pixel_spacing_mm is None:
        return None
    corners = np.array([header.image_position_mm for header in headers], dtype=np.float64)
    normal = np.array(plane.normal)
    order = np.argsort(corners @ normal, kind="stable")
    corners = corners[order]
    positions = corners @ normal
    steps = np.diff(corners, axis=0)
    gaps = np.diff(positions)
    distinct = gaps > SAME_POSITION_MM
    spacing = float(np.median(gaps[distinct])) if distinct.any() else None
    return StackGeometry(
        order=tuple(int(index) for index in order),
        positions_mm=tuple(float(position) for position in positions),
        plane=plane,
        origin_mm=_vector3(corners[0]),
        slice_step_mm=_vector3((corners[-1] - corners[0]) / max(len(headers) - 1, 1)),
        rows=first.rows or 0,
        columns=first.columns or 0,
        pixel_spacing_mm=first.pixel_spacing_mm,
        is_parallel=all(_is_parallel(header, first) for header in headers),
        is_one_grid=all(_is_one_grid(header, first) for header in headers),
        duplicate_positions=int(len(gaps) - distinct.sum()),
        spacing_mm=spacing,
        max_gap_deviation=_max_deviation(gaps[distinct], spacing),
        tilt_deg=_tilt_deg(steps[distinct], normal),
        lateral_jump_mm=_lateral_jump_mm(steps, normal, gaps),
    )


def _has_geometry(header: InstanceHeader) -> bool:
    return (
        header.image_position_mm is not None
        and all(math.isfinite(value) for value in header.image_position_mm)
        and header.image_orientation is not None
        and plane_of(header.image_orientation) is not None
        and header.pixel_spacing_mm is not None
        and all(0 < value < math.inf for value in header.pixel_spacing_mm)
        and bool(header.rows and header.columns)
    )


def _is_parallel(header: InstanceHeader, first: InstanceHeader) -> bool:
    if header.image_orientation == first.image_orientation:
        return True
    return (
        header.image_orientation is not None
        and first.image_orientation is not None
        and all(
            abs(one - other) <= COSINE_TOLERANCE
            for one, other in zip(header.image_orientation, first.image_orientation, strict=True)
        )
    )


def _is_one_grid(header: InstanceHeader, first: InstanceHeader) -> bool:
    if (header.rows, header.columns) != (first.rows, first.columns):
        return False
    if header.frame_of_reference_uid != first.frame_of_reference_uid:
        return False
    if header.pixel_spacing_mm is None or first.pixel_spacing_mm is None:
        return False
    return all(
        math.isclose(one, other, rel_tol=SPACING_TOLERANCE)
        for one, other in zip(header.pixel_spacing_mm, first.pixel_spacing_mm, strict=True)
    )


def _max_deviation(gaps: Float64, spacing: float | None) -> float:
    return 0.0 if spacing is None else float(np.abs(gaps - spacing).max() / spacing)


def _tilt_deg(steps: Float64, normal: Float64) -> float:
    """Of the median step, so that a few odd slices do not hide or make a tilt."""
    if not len(steps):
        return 0.0
    forward = steps @ normal
    # Sideways per millimetre forward: a wide gap counts as much as a narrow one.
    slant = np.median(steps / forward[:, np.newaxis] - normal, axis=0)
    return math.degrees(math.atan(float(np.linalg.norm(slant))))


def _lateral_jump_mm(steps: Float64, normal: Float64, gaps: Float64) -> float:
    distinct = gaps > SAME_POSITION_MM
    if not len(steps):
        return 0.0
    sideways = steps - gaps[:, np.newaxis] * normal
    slant = np.zeros(3)
    if distinct.any():
        slant = np.median(sideways[distinct] / gaps[distinct, np.newaxis], axis=0)
    return float(np.linalg.norm(sideways - gaps[:, np.newaxis] * slant, axis=1).max())


def _is_orthonormal(row: Float64, column: Float64) -> bool:
    if not (np.isfinite(row).all() and np.isfinite(column).all()):
        return False
    lengths = (float(row @ row), float(column @ column))
    # Some scanners round cosines to 3 digits.
    tolerance = 5e-3
    return all(abs(length - 1) < tolerance for length in lengths) and (
        abs(float(row @ column)) < tolerance
    )


def _vector3(vector: Float64) -> Vector3:
    x, y, z = (float(value) for value in vector)
    return (x, y, z)
