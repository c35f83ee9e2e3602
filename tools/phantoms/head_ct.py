"""Head CT slices in Hounsfield units, drawn one by one from a specification.

Anatomy is drawn on half of the matrix's grid and interpolated: the point spread of a soft kernel
is wider than two pixels, and the slices come twice as fast. Slices are independent of each
other: any slice can be drawn alone, in any order, and memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.phantoms.brain import draw_head
from tools.phantoms.fields import NoiseTile, fold_field, grain_field, noise_tile
from tools.phantoms.frame import FloatArray, Frame, SliceGeometry, head_rotation
from tools.phantoms.scene import Scene
from tools.phantoms.spec import Acquisition, BleedKind, PhantomSpec, Point

LOWEST_HU = -1024
HIGHEST_HU = 3071
"""Twelve stored bits, as most scanners store."""
FULL_DETAIL_MATRIX = 320
"""Matrices up to this are drawn without the half grid."""
PATIENT_CENTRE_MM: Point = (0.0, 0.0, 0.0)

TRUTH_MATRIX = 128
TRUTH_SPACING_MM = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BleedTruth:
    """What stands in the pixels, measured from the drawn shape."""

    kind: BleedKind
    volume_ml: float
    hu: float
    contrast_hu: float
    """Above grey matter."""
    centre_mm: Point
    """Centre of mass in patient coordinates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSlice:
    """One slice and what it shows."""

    hu: NDArray[np.int16]
    """(rows, columns), -1024..3071."""
    bleed_mm2: float
    """Area of bleeding in the slice, partial volume counted by its share."""


class HeadPhantom:
    """Draws one specification."""

    def __init__(self, spec: PhantomSpec) -> None:
        self.spec = spec
        self._rotation = head_rotation(spec.placement)
        self._folds = fold_field(spec.seed * 7 + 1)
        self._grain = grain_field(spec.seed * 7 + 2)
        scan = spec.acquisition
        self._noise: NoiseTile = noise_tile(
            spec.seed * 7 + 3,
            kernel=scan.kernel,
            noise_hu=scan.noise_hu,
            pixel_mm=scan.pixel_mm,
            largest_side=scan.matrix,
        )
        self._sensitivity = _noise_by_place(scan.matrix, scan.pixel_mm)

    def geometry(self, index: int) -> SliceGeometry:
        """Geometry of slice ``index``, counted from the feet."""
        return slice_geometry(self.spec.acquisition, index)

    def slices(self) -> Iterator[NDArray[np.int16]]:
        """Every slice from the feet to the head, (matrix, matrix), HU."""
        for index in range(self.spec.acquisition.slices):
            yield self.slice_hu(index)

    def slice_hu(self, index: int) -> NDArray[np.int16]:
        """Slice ``index``, (matrix, matrix), HU in -1024..3071."""
        return self.draw(self.geometry(index), noise_stream=index).hu

    def draw(self, geometry: SliceGeometry, *, noise_stream: int) -> DrawnSlice:
        """Draw any slice through the head; ``noise_stream`` picks its noise."""
        factor = 2 if geometry.rows > FULL_DETAIL_MATRIX else 1
        scene = self._scene(geometry.coarsened(factor))
        image = draw_head(scene)
        if factor == 2:
            image = _doubled(image)
        image = _moved(image, self.spec.placement.motion_mm / geometry.pixel_mm)
        rng = np.random.default_rng([self.spec.seed, 4, noise_stream])
        noise = self._noise.cut(rng, geometry.rows, geometry.columns)
        noise *= self._sensitivity[: geometry.rows, : geometry.columns]
        image += noise
        np.clip(np.rint(image, out=image), LOWEST_HU, HIGHEST_HU, out=image)
        pixel_mm2 = scene.frame.in_plane_pixel_mm**2
        bleed_mm2 = sum(float(share.sum()) for share in scene.bleed_shares) * pixel_mm2
        return DrawnSlice(hu=image.astype(np.int16), bleed_mm2=bleed_mm2)

    def _scene(self, geometry: SliceGeometry) -> Scene:
        shift = self.spec.placement.shift_mm
        frame = Frame(geometry, self._rotation, (shift[0], shift[1], 0.0))
        middle = frame.z[frame.shape[0] // 2, frame.shape[1] // 2]
        rows = np.ascontiguousarray(frame.y[:, frame.shape[1] // 2])
        columns = np.ascontiguousarray(frame.x[frame.shape[0] // 2])
        return Scene(
            spec=self.spec,
            frame=frame,
            folds=self._folds.slice_at(float(middle), rows, columns),
            grain=self._grain.slice_at(float(middle), rows, columns),
        )

    def truth(self) -> tuple[BleedTruth, ...]:
        """Each bleed's volume and place, measured on a coarse grid over the whole head."""
        return tuple(self._measure(number) for number in range(len(self.spec.bleeds)))

    def _measure(self, number: int) -> BleedTruth:
        bleed = self.spec.bleeds[number]
        pixel = 230.0 / TRUTH_MATRIX
        half = (TRUTH_MATRIX - 1) / 2 * pixel
        total = 0.0
        moment = np.zeros(3)
        for z in np.arange(-80.0, 110.0, TRUTH_SPACING_MM):
            geometry = SliceGeometry(
                position_mm=(-half, -half, float(z)),
                row_cosines=(1.0, 0.0, 0.0),
                column_cosines=(0.0, 1.0, 0.0),
                pixel_mm=pixel,
                rows=TRUTH_MATRIX,
                columns=TRUTH_MATRIX,
                thickness_mm=TRUTH_SPACING_MM,
            )
            scene = self._scene(geometry)
            draw_head(scene)
            share = scene.bleed_shares[number]
            amount = float(share.sum())
            if amount > 0:
                axis = np.arange(TRUTH_MATRIX) * pixel - half
                x = float(share.sum(axis=0) @ axis)
                y = float(share.sum(axis=1) @ axis)
                moment += (x, y, amount * float(z))
                total += amount
        centre = moment / total if total else np.full(3, np.nan)
        return BleedTruth(
            kind=bleed.kind,
            volume_ml=round(total * pixel**2 * TRUTH_SPACING_MM / 1000, 3),
            hu=bleed.hu,
            contrast_hu=bleed.hu - self.spec.anatomy.grey_hu,
            centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        )


def slice_geometry(scan: Acquisition, index: int) -> SliceGeometry:
    """Geometry of slice ``index`` of an acquisition, counted from the feet.

    With a tilted gantry the slices lean while the table moves along z, so that the stack is
    sheared: the step from slice to slice is not along their normal.
    """
    tilt = math.radians(scan.gantry_tilt_deg)
    half = (scan.matrix - 1) / 2 * scan.pixel_mm
    height = scan.first_mm + index * scan.spacing_mm
    return SliceGeometry(
        position_mm=(-half, -half * math.cos(tilt), height - half * math.sin(tilt)),
        row_cosines=(1.0, 0.0, 0.0),
        column_cosines=(0.0, math.cos(tilt), math.sin(tilt)),
        pixel_mm=scan.pixel_mm,
        rows=scan.matrix,
        columns=scan.matrix,
        thickness_mm=scan.thickness_mm,
    )


def _noise_by_place(matrix: int, pixel_mm: float) -> FloatArray:
    """Noise is highest in the middle of the head, where the rays lose most: (matrix, matrix)."""
    axis = (np.arange(matrix, dtype=np.float32) - np.float32((matrix - 1) / 2)) * pixel_mm
    squares = (axis / 90.0) ** 2
    radius_squared = squares[:, None] + squares[None, :]
    sensitivity: FloatArray = (0.55 + 0.45 * np.exp(-radius_squared)).astype(np.float32)
    return sensitivity


def _doubled(image: FloatArray) -> FloatArray:
    """Twice the rows and columns by linear interpolation between pixel centres."""
    doubled: FloatArray = _doubled_rows(_doubled_rows(image).T).T
    return doubled


def _doubled_rows(image: FloatArray) -> FloatArray:
    quarter = np.float32(0.25)
    result = np.empty((image.shape[0] * 2, image.shape[1]), np.float32)
    before = np.concatenate((image[:1], image[:-1]))
    after = np.concatenate((image[1:], image[-1:]))
    result[0::2] = image + quarter * (before - image)
    result[1::2] = image + quarter * (after - image)
    return result


def _moved(image: FloatArray, pixels: float) -> FloatArray:
    """The double contour of a head that moved sideways during the turn of the tube."""
    step = round(pixels)
    if step == 0:
        return np.ascontiguousarray(image)
    return np.ascontiguousarray(0.65 * image + 0.35 * np.roll(image, step, axis=1))
