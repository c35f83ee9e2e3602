"""The test sets of the packages that we ship: cases whose truth is known, and what to calibrate on.

Radiographs come from the public data set, phantoms are drawn; neither is in the repository.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages
from tools.head_ct.phantom_sets import PhantomSet
from tools.head_ct.simulate import SimulatedStudy, channels, simulate_set
from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.dataset import (
    DataSplit,
    Radiograph,
    find_radiographs,
    of_split,
    read_pixels,
)
from tools.quantise.errors import LabelledSetError

Float32 = NDArray[np.float32]

CALIBRATION_PHANTOMS = 48
CALIBRATION_MATRIX = 256
"""As the operating point of the package was found."""
TEST_MATRIX = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A study as the model sees it, and what it shows."""

    items: Float32
    """(items, ...) of the model's input."""
    positive: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledSet:
    """A package, what its quantisation may be calibrated with, and what it is tested on."""

    package: LoadedPackage
    calibration: Float32
    """Items of cases that are not in the test."""
    cases: Callable[[], Iterable[Case]]
    """The test, anew each time and one after the other: it need not be in memory at once."""


def radiograph_set(folder: Path) -> LabelledSet:
    """Radiographs of children that training did not see, each a case.

    Args:
        folder: The data set; see ``tools/paediatric_cxr/dataset.py`` for where to get it.

    Raises:
        DataSetError: It is another one.
        LabelledSetError: It lacks radiographs to calibrate with, or to test on.
        PackageError: The shipped package is not whole.
    """
    found = find_radiographs(folder)
    calibration, test = (
        of_split(found, split) for split in (DataSplit.CALIBRATION, DataSplit.TEST)
    )
    if not calibration or {radiograph.positive for radiograph in test} != {False, True}:
        raise LabelledSetError(
            f"{folder} has {len(calibration)} radiographs for calibration and {len(test)} for the "
            "test; it needs some for the one, and ill and healthy children for the other"
        )
    cases = tuple(
        Case(items=_item(radiograph), positive=radiograph.positive) for radiograph in test
    )
    return LabelledSet(
        package=load_package(shipped_packages()["paediatric_cxr_pneumonia"]),
        calibration=np.concatenate([_item(radiograph) for radiograph in calibration]),
        cases=lambda: cases,
    )


def phantom_set(folder: Path, *, count: int, processes: int) -> LabelledSet:
    """Drawn heads that training did not see, each a case.

    Args:
        folder: Keeps what was drawn, 1 MB a phantom; drawing one takes 2 to 3 s.
        count: Of the test, at least 2: every other one bleeds.
        processes: That draw.

    Raises:
        PackageError: The shipped package is not whole.
    """

    def drawn(phantoms: PhantomSet, number: int, matrix: int) -> Iterator[SimulatedStudy]:
        return simulate_set(phantoms, number, matrix=matrix, folder=folder, processes=processes)

    calibration = drawn(PhantomSet.CALIBRATION, CALIBRATION_PHANTOMS, CALIBRATION_MATRIX)
    return LabelledSet(
        package=load_package(shipped_packages()["head_ct_phantom"]),
        calibration=np.concatenate([channels(study.slab_hu) for study in calibration]),
        cases=lambda: (
            Case(items=channels(study.slab_hu), positive=study.positive)
            for study in drawn(PhantomSet.TEST, count, TEST_MATRIX)
        ),
    )


def _item(radiograph: Radiograph) -> Float32:
    return recipe.items(recipe.picture(read_pixels(radiograph.path))[None])
