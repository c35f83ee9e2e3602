"""What goes between the steps: one image as stored, one picture, a stack of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Int16 = npt.NDArray[np.int16]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
StoredPixels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How an image reaches the canonical orientation: first the exchange, then the reversals."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One frame as the file holds it, and what the header says of its values and its place."""

    pixels: StoredPixels
    """(rows, columns), native byte order."""
    slope: float = 1.0
    intercept: float = 0.0
    padding: int | None = None
    """PixelPaddingValue (0028,0120), signed or unsigned as the writer had it."""
    padding_limit: int | None = None
    """PixelPaddingRangeLimit (0028,0121), likewise: values from the one to the other are padding.
    Means nothing without ``padding``."""
    bits_stored: int = 16
    is_signed: bool = False
    is_monochrome1: bool = False
    spacing_mm: tuple[float, float] | None = None
    """Between rows, between columns (PS3.3 10.7.1.1)."""
    turn: Turn | None = None
    """None: the image has no orientation."""
    position_mm: float | None = None
    """Along the canonical normal; None: the image has no position."""
    thickness_mm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image between two steps."""

    values: Float32
    """(rows, columns)"""
    extremes: tuple[float, float]
    """The lowest and highest value that the stored bits can express, rescaled."""
    is_monochrome1: bool = False
    """Larger values are darker."""
    minus: float = 0.0
    """What was taken from the values, so that it lies at exactly 0: the fill of the grid that comes
    next. Only between ``rescale`` and that grid."""
    padding: Mask | None = None
    """(rows, columns): where nothing was measured, of an image that is yet to be turned over; None:
    everywhere something was, or the place of padding was lost in a new grid."""
    spacing_mm: tuple[float, float] | None = None
    turn: Turn | None = None
    position_mm: float | None = None
    thickness_mm: float | None = None

    @property
    def nbytes(self) -> int:
        """Memory of its values."""
        return self.values.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """All images between two steps."""

    values: Float32
    """(slices, rows, columns)"""
    spacing_mm: tuple[float, float, float] | None = None
    """Between slices, rows, columns; None: one of them is not known."""
