"""The records that the kernel reads, member by member as ``sources/layout.h`` has them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.kernel.fusing import MOST_OPS

Bytes: TypeAlias = npt.NDArray[np.uint8]
Record: TypeAlias = npt.NDArray[Any]

SLICE = np.dtype(
    [
        ("picture", "u8"),
        ("slope", "f8"),
        ("intercept", "f8"),
        ("padding_value", "f4"),
        ("inverted_from", "f4"),
        ("shift", "f4"),
        ("added", "f4"),
        ("empty", "f4"),
        ("flags", "i4"),
        ("padding_low", "i4"),
        ("padding_high", "i4"),
        ("columns", "i4"),
        ("row_cells", "i4"),
        ("column_cells", "i4"),
        ("first_place", "i4"),
        ("row_step", "i4"),
        ("column_step", "i4"),
        ("row_table", "i4"),
        ("column_table", "i4"),
        ("pixels", "i4"),
        ("next", "i4"),
    ]
)
MAP = np.dtype(
    [
        ("low_percent", "f8"),
        ("high_percent", "f8"),
        ("kind", "i4"),
        ("has_foreground", "i4"),
        ("clips", "i4"),
        ("above", "f4"),
        ("base", "f4"),
        ("factor", "f4"),
        ("offset", "f4"),
        ("lowest", "f4"),
        ("highest", "f4"),
        ("is_first", "i4"),
    ]
)
OP = np.dtype([("kind", "i4"), ("first", "f4"), ("second", "f4")])
CHANNEL = np.dtype([("offset", "i4"), ("ops", "i4"), ("op", OP, (MOST_OPS,))])
RECIPE = np.dtype(
    [
        ("item_step", "i8"),
        ("channel_step", "i8"),
        ("pixel_step", "i8"),
        ("channels", "i4"),
        ("pixels", "i4"),
    ]
)
MEMBER = np.dtype([("picture", "u8"), ("weight", "f4"), ("unused", "i4")])

SIGNED, EXACT, INVERTED = 1, 2, 4
LINE, PERCENTILES, ZSCORE = 0, 1, 2
TILE = 1024
"""Pixels of a picture that one block turns into channels."""
NO_VALUES = np.float32(0)
"""Broadcast to a picture's size, it stands for values that lie elsewhere."""
ALIGNMENT = 16
"""Bytes; what begins there may hold any type."""
STORED_BYTES = 2
"""Of a stored value as it lies in a slot; of one byte it is widened."""


def aligned(nbytes: int) -> int:
    """Return where the next thing of any type may lie, behind so many bytes."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
