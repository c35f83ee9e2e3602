"""Where a slice lies in the head, and how shapes are painted on it with partial volume.

A shape is a depth map in millimetres, positive inside. Its share of a voxel falls linearly over
the width that the voxel's blur has along the surface's normal: that is the partial volume of a
thick slice without drawing it several times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.phantoms.spec import Placement, Point

FloatArray = NDArray[np.floating[Any]]
"""Drawn in float32; some sums pass through float64."""
Matrix = NDArray[np.float64]
Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceGeometry:
    """Position and orientation of one slice in patient coordinates (PS3.3 C.7.6.2.1.1)."""

    position_mm: Point
    """Centre of the first pixel."""
    row_cosines: Point
    """Direction in which the column index grows."""
    column_cosines: Point
    """Direction in which the row index grows."""
    pixel_mm: float
    rows: int
    columns: int
    thickness_mm: float

    @property
    def normal(self) -> Point:
        """Unit normal of the slice."""
        x, y, z = np.cross(self.row_cosines, self.column_cosines)
        return (float(x), float(y), float(z))

    def coarsened(self, factor: int) -> SliceGeometry:
        """The same field of view with pixels ``factor`` times as large."""
        offset = (factor - 1) / 2 * self.pixel_mm
        x, y, z = (
            p + offset * (r + c)
            for p, r, c in zip(self.position_mm, self.row_cosines, self.column_cosines, strict=True)
        )
        return SliceGeometry(
            position_mm=(x, y, z),
            row_cosines=self.row_cosines,
            column_cosines=self.column_cosines,
            pixel_mm=self.pixel_mm * factor,
            rows=self.rows // factor,
            columns=self.columns // factor,
            thickness_mm=self.thickness_mm,
        )


def head_rotation(placement: Placement) -> Matrix:
    """Rotation from head to patient coordinates."""
    roll, pitch, yaw = (
        math.radians(a) for a in (placement.roll_deg, placement.pitch_deg, placement.yaw_deg)
    )
    about_z = np.array(
        [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
    )
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]
    )
    about_y = np.array(
        [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
    )
    rotation: Matrix = about_z @ about_x @ about_y
    return rotation


class Frame:
    """Head coordinates of every pixel of one slice, and the blur that its voxels have."""

    def __init__(self, geometry: SliceGeometry, rotation: Matrix, shift_mm: Point) -> None:
        inverse = rotation.T
        self.origin = inverse @ (np.array(geometry.position_mm) - np.array(shift_mm))
        self.column_step = inverse @ np.array(geometry.row_cosines) * geometry.pixel_mm
        self.row_step = inverse @ np.array(geometry.column_cosines) * geometry.pixel_mm
        self.normal = inverse @ np.array(geometry.normal)
        self.shape = (geometry.rows, geometry.columns)
        self.thickness_mm = geometry.thickness_mm
        self.in_plane_pixel_mm = geometry.pixel_mm
        self.in_plane_blur_mm = max(1.0, geometry.pixel_mm)
        self.x, self.y, self.z = (self._axis(axis) for axis in range(3))

    def _axis(self, axis: int) -> FloatArray:
        rows, columns = self.shape
        column = (np.arange(columns) * self.column_step[axis]).astype(np.float32)
        row = (np.arange(rows) * self.row_step[axis] + self.origin[axis]).astype(np.float32)
        coordinates: FloatArray = row[:, None] + column[None, :]
        return coordinates

    def blur_mm(self, normal_share: FloatArray | float) -> FloatArray:
        """Width over which a surface fades, by the share of its normal along the slice's."""
        along = np.asarray(normal_share, np.float32) * np.float32(self.thickness_mm)
        width: FloatArray = np.sqrt(along * along + np.float32(self.in_plane_blur_mm**2))
        return width

    def box_around(self, centre: Point, reach_mm: float) -> Box | None:
        """Rows and columns within ``reach_mm`` of a point; None when the slice passes it by."""
        offset = np.array(centre) - self.origin
        if abs(float(offset @ self.normal)) > reach_mm + self.thickness_mm:
            return None
        spans = []
        for step, count in zip((self.row_step, self.column_step), self.shape, strict=True):
            pixel_mm = float(np.linalg.norm(step))
            middle = float(offset @ step) / pixel_mm**2
            radius = (reach_mm + 2 * self.in_plane_blur_mm) / pixel_mm
            low = max(0, math.floor(middle - radius))
            high = min(count, math.ceil(middle + radius) + 1)
            if low >= high:
                return None
            spans.append(slice(low, high))
        return spans[0], spans[1]


def occupancy(depth_mm: FloatArray, blur_mm: FloatArray | float) -> FloatArray:
    """Share of each voxel inside a surface, 0..1, from the depth below it."""
    share: FloatArray = np.clip(depth_mm / blur_mm + np.float32(0.5), 0, 1)
    return share


def paint(image: FloatArray, share: FloatArray, value: FloatArray | float) -> None:
    """Replace ``share`` of every voxel of ``image`` by ``value``, in place."""
    image += share * (value - image)


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid in head coordinates, turned about z."""

    centre: Point
    radii: Point
    turn_deg: float = 0.0

    def share(
        self, frame: Frame, bend_mm: FloatArray | None = None
    ) -> tuple[Box, FloatArray] | None:
        """Box of the slice that it touches, and its share of each voxel there.

        ``bend_mm`` (the whole slice) moves the surface outwards.
        """
        box = frame.box_around(self.centre, max(self.radii) + 4.0)
        if box is None:
            return None
        x = frame.x[box] - np.float32(self.centre[0])
        y = frame.y[box] - np.float32(self.centre[1])
        z = frame.z[box] - np.float32(self.centre[2])
        if self.turn_deg:
            cos, sin = (np.float32(f(math.radians(self.turn_deg))) for f in (math.cos, math.sin))
            x, y = cos * x + sin * y, cos * y - sin * x
        a, b, c = (np.float32(radius) for radius in self.radii)
        level = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + np.float32(1e-6)
        slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) + np.float32(1e-6)
        depth = (1 - level) * level / slope
        if bend_mm is not None:
            depth = depth + bend_mm[box]
        return box, occupancy(depth, frame.blur_mm(np.abs(z) / c**2 / slope))
