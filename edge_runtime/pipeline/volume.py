"""A series of single-frame files as one volume in Hounsfield units, and where it lies.

For those who need all pixels as they were measured; what a model sees is made by the steps of its
package. Pixels are read straight to their place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.decode import read_pixels
from edge_runtime.pipeline.errors import PreprocessError
from edge_runtime.pipeline.geometry import Float64, StackGeometry, measure_stack
from edge_runtime.pipeline.preprocess import reasons_told, stored_image
from engines.preprocessing.rescaling import rescale, rescale_in_place
from engines.preprocessing.values import Float32, Int16
from engines.steps import Rescale

File = tuple[Path, InstanceHeader]
"""One instance: where it is stored, and its header."""

AIR = Rescale(step="rescale", padding=-1024.0)
"""What is padding lies outside the patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """All pixels of a series."""

    values: Int16 | Float32
    """(slices, rows, columns), from the lowest slice along the normal: int16 where every value is a
    whole number that fits, as for nearly every CT, else float32."""
    affine: Float64
    """(4, 4): from (column, row, slice, 1) to LPS millimetres."""


class Staging:
    """Memory that one volume after the other is read to.

    The kernel zeroes new pages before they are filled, which takes nearly as long as reading the
    pixels; who reads many series saves that, and holds the memory of the largest one.
    """

    def __init__(self) -> None:
        self._memory: Int16 = np.empty(0, dtype=np.int16)

    def take(self, shape: tuple[int, int, int]) -> Int16:
        """An array of undefined content; the one that was taken before must no longer be used."""
        size = math.prod(shape)
        if self._memory.size < size:
            self._memory = np.empty(0, dtype=np.int16)  # given back before more is asked for
            self._memory = np.empty(size, dtype=np.int16)
        return self._memory[:size].reshape(shape)


def read_volume(
    files: Sequence[File], step: Rescale = AIR, *, staging: Staging | None = None
) -> Volume:
    """Read a series.

    Whether its slices lie as those of a volume should is the gate's to say (``gate.check_series``):
    here each stands where its position orders it.

    Args:
        files: of one series, at least one, in any order.
        step: what padding becomes.
        staging: where int16 values are read to, until the next series is; None for memory of their
            own.

    Raises:
        PreprocessError: a slice has no place, or not the size of the others.
        DecodeError: pixels are of another kind than the others', or cannot be read.
        CodecMissingError: this installation lacks a codec.
        OSError: a file cannot be read.
    """
    stack = measure_stack([header for _, header in files]) if files else None
    if stack is None or not stack.is_one_grid:
        raise PreprocessError(
            ReasonCode.GEOMETRY_MISSING if stack is None else ReasonCode.INCONSISTENT_IMAGES,
            "there is no image, a slice has no place, or slices differ in size",
        )
    ordered = [files[index] for index in stack.order]
    with reasons_told():
        shape = (len(ordered), stack.rows, stack.columns)
        place = np.empty(shape, dtype=np.int16) if staging is None else staging.take(shape)
        whole = _whole_numbers(ordered, place, step)
        values = _floats(ordered, stack, step) if whole is None else whole
    return Volume(values=values, affine=stack.affine)


def _whole_numbers(files: Sequence[File], values: Int16, step: Rescale) -> Int16 | None:
    """None where float32 is needed, which may come out at the last slice only."""
    for place, (path, header) in zip(values, files, strict=True):
        if header.bits_allocated != place.itemsize * 8:
            return None
        own = place if header.pixel_representation == 1 else place.view(np.uint16)
        image = stored_image(read_pixels(path, header, into=own), header)
        if rescale_in_place(image, step) is None:
            return None
    return values


def _floats(files: Sequence[File], stack: StackGeometry, step: Rescale) -> Float32:
    values = np.empty((len(files), stack.rows, stack.columns), dtype=np.float32)
    for place, (path, header) in zip(values, files, strict=True):
        np.copyto(place, rescale(stored_image(read_pixels(path, header), header), step).values)
    return values
