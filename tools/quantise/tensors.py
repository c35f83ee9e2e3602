"""What a quantisation is calibrated with: inputs like those that the model will see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.checksums import read_bounded
from engines.contract import FREE, all_finite
from engines.errors import GoldenFileError, PackageIntegrityError
from engines.golden import MAX_GOLDEN_BYTES, read_arrays
from engines.package import InputRule
from tools.quantise.errors import CalibrationError

Float32 = NDArray[np.float32]

MOST_FILES = 10_000


def read_tensors(folder: Path, rule: InputRule, *, most: int) -> Float32:
    """Reads the ``.npz`` files of a folder.

    Args:
        folder: Each file has one array, float32, named and shaped as the model's input, with any
            number of items.
        rule: The package's.
        most: Items; where there are more, every so-manieth is taken.

    Raises:
        CalibrationError: There are none, or one does not fit.
    """
    files = sorted(folder.glob("*.npz"))[:MOST_FILES]
    if not files:
        raise CalibrationError(f"{folder} holds no .npz files; each has one array {rule.name!r}")
    # Thinned as they come: all of a large folder need not be in memory at once.
    share = max(1, -(-most // len(files)))
    return thinned(np.concatenate([thinned(_read(file, rule), share) for file in files]), most)


def thinned(items: Float32, most: int) -> Float32:
    """At most so many items, spread evenly over all."""
    if len(items) <= most:
        return items
    chosen: Float32 = items[np.linspace(0, len(items) - 1, most).round().astype(int)]
    return chosen


def _read(file: Path, rule: InputRule) -> Float32:
    try:
        array = read_arrays(read_bounded(file, MAX_GOLDEN_BYTES), [rule.name])[rule.name]
    except (GoldenFileError, PackageIntegrityError) as error:
        raise CalibrationError(f"{file.name}: {error}") from error
    fits = len(array.shape) == len(rule.shape) and all(
        wanted in (FREE, size) for wanted, size in zip(rule.shape[1:], array.shape[1:], strict=True)
    )
    if not fits or not len(array) or not all_finite(array):
        raise CalibrationError(
            f"{file.name}: {rule.name!r} has shape {array.shape} or holds NaN; the model takes "
            f"finite numbers of shape {rule.shape} (-1: any)"
        )
    return array
