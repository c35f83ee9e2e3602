"""A volume as a reader returns it, held against what the series really holds; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.bench.readers.truth import Truth

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

LPS_OF_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
"""NIfTI counts to the right and to the front, DICOM to the left and to the back."""
EXACT_HU = 2.0**-12
"""What float32 rounds off below 4,096 HU."""
EXACT_MM = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What a reader made of a folder."""

    values: Array
    """(slices, rows, columns), or with these axes turned, as the affine says."""
    affine: Float64
    """(4, 4): from (column, row, slice, 1), counted along the last, middle and first axis of the
    values, to LPS millimetres."""
    slope: Array | float = 1.0
    """To Hounsfield units: of all values, or broadcast over them."""
    intercept: Array | float = 0.0


class Verdict(str, Enum):
    """How a volume compares with the truth."""

    EXACT = "exact"
    WRONG_VALUES = "wrong values"
    WRONG_PLACES = "wrong places"
    OTHER_SHAPE = "other shape"
    """Slices were dropped or added, or it was resampled; nothing was compared."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A comparison; numbers are None where there was nothing to compare."""

    verdict: Verdict
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    max_error_hu: float | None = None
    wrong_share: float | None = None
    """Of all voxels."""
    max_displacement_mm: float | None = None
    """Farthest that a corner of any slice lies from where it was scanned."""


def judge(volume: Volume, truth: Truth) -> Judgement:
    """Compare every voxel and the corners of every slice."""
    values, slope, intercept, affine = _aligned(volume, truth)
    shape = tuple(int(size) for size in values.shape)
    if values.shape != truth.stored.shape:
        return Judgement(verdict=Verdict.OTHER_SHAPE, shape=shape, dtype=str(volume.values.dtype))
    displacement = _displacement_mm(affine, truth)
    errors = [
        np.abs(
            values[index].astype(np.float64) * slope[index]
            + intercept[index]
            - truth.hounsfield(index)
        )
        for index in range(len(values))
    ]
    worst = max(float(error.max()) for error in errors)
    wrong = sum(int((error > EXACT_HU).sum()) for error in errors)
    if worst > EXACT_HU:
        verdict = Verdict.WRONG_VALUES
    else:
        verdict = Verdict.EXACT if displacement <= EXACT_MM else Verdict.WRONG_PLACES
    return Judgement(
        verdict=verdict,
        shape=shape,
        dtype=str(volume.values.dtype),
        max_error_hu=round(worst, 4),
        wrong_share=round(wrong / values.size, 4),
        max_displacement_mm=round(displacement, 3),
    )


def _aligned(volume: Volume, truth: Truth) -> tuple[Array, Array, Array, Float64]:
    """The same volume with the truth's axes: readers turn and flip as they like."""
    values = volume.values
    slope = np.broadcast_to(volume.slope, values.shape)
    intercept = np.broadcast_to(volume.intercept, values.shape)
    affine = volume.affine.astype(np.float64)
    order = _order(affine, truth)
    affine[:, :3] = affine[:, order]
    # Columns of the affine count the axes of the values from the last one.
    turned = [2 - order[2 - axis] for axis in range(3)]
    found = [array.transpose(turned) for array in (values, slope, intercept)]
    for number, direction in enumerate(_directions(truth)):
        if affine[:3, number] @ direction < 0:
            axis = 2 - number
            affine[:, 3] += affine[:, number] * (found[0].shape[axis] - 1)
            affine[:, number] *= -1
            found = [np.flip(array, axis) for array in found]
    return found[0], found[1], found[2], affine


def _directions(truth: Truth) -> Float64:
    along = truth.corners_mm[-1] - truth.corners_mm[0]
    directions = np.stack([*truth.axes_mm, along])
    unit: Float64 = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return unit


def _order(affine: Float64, truth: Truth) -> list[int]:
    """Which column of the affine stands for the truth's column, row and slice."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    likeness = np.abs(_directions(truth) @ axes)
    order: list[int] = []
    for row in likeness:
        left = [column for column in range(3) if column not in order]
        order.append(max(left, key=lambda column: float(row[column])))
    return order


def _displacement_mm(affine: Float64, truth: Truth) -> float:
    slices, rows, columns = truth.stored.shape
    worst = 0.0
    for k, i, j in product(range(slices), (0, columns - 1), (0, rows - 1)):
        real = truth.corners_mm[k] + i * truth.axes_mm[0] + j * truth.axes_mm[1]
        place = affine @ np.array((i, j, k, 1.0))
        worst = max(worst, float(np.linalg.norm(place[:3] - real)))
    return worst
