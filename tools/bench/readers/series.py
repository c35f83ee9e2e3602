"""Series of files whose every value and place is known.

A few slices of a head phantom are drawn, which takes long; longer series repeat them, each rolled
by another number of rows, so that no two slices are the same.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from tools.bench.readers.names import Trait
from tools.bench.readers.truth import Truth
from tools.phantoms.encoding import PhantomSyntax, encode_pixels
from tools.phantoms.headers import STYLES, Style, decimal_string, derived_uid
from tools.phantoms.variants import PhantomName, make_study

DRAWN_SLICES = 16
COVERAGE_MM = 160.0
LEAST_SLICES = 30
"""Fewer would be thicker than the head CT model takes."""
ANISOTROPIC_MM = (0.4, 0.8)
TILT_DEG = 15.0
_SEED = 1
_ROLL_ROWS = 3
_SLOPE_STEP = 0.001
"""Slopes of later slices differ from the first by so much each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a series is."""

    slices: int
    syntax: PhantomSyntax = PhantomSyntax.EXPLICIT
    trait: Trait = Trait.PLAIN

    @property
    def words(self) -> str:
        """As folder and row."""
        return f"{self.slices}-{self.syntax.value}-{self.trait.value}"


class DrawnSlices:
    """Slices of one head, from which series are made."""

    def __init__(self, count: int = DRAWN_SLICES) -> None:
        """Draw them; takes about a tenth of a second each.

        Args:
            count: so many; series repeat them.
        """
        study = make_study(PhantomName.HEAD_CT, seed=_SEED, positive=True, slices=count)
        # No padding: every pixel has a value that all readers should agree on.
        header = dataclasses.replace(study.header, style=STYLES[Style.SIEMENS])
        self._headers = tuple(dataclasses.replace(study, header=header).datasets())
        self._drawn = [_stored(dataset) for dataset in self._headers]
        for dataset in self._headers:
            del dataset.PixelData

    def write(self, kind: Kind, folder: Path) -> Truth:
        """Write one series into a new folder, and say what it holds."""
        folder.mkdir(parents=True)
        truth = _truth(kind, self._drawn)
        for number, (place, uid) in enumerate(_files(kind), start=1):
            dataset = self._dataset(kind, truth, place, number)
            dataset.SOPInstanceUID = derived_uid("bench", kind.words, uid)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            encode_pixels(dataset, kind.syntax)
            dataset.save_as(folder / f"IM{number:06d}.dcm", enforce_file_format=True)
        return _without_lost(kind, truth)

    def _dataset(self, kind: Kind, truth: Truth, place: int, number: int) -> Dataset:
        dataset = copy.deepcopy(self._headers[place % len(self._headers)])
        columns_mm, rows_mm = np.linalg.norm(truth.axes_mm, axis=1)
        cosines = np.concatenate([truth.axes_mm[0] / columns_mm, truth.axes_mm[1] / rows_mm])
        dataset.SeriesInstanceUID = derived_uid("bench", kind.words)
        dataset.InstanceNumber = str(number)
        dataset.ImagesInAcquisition = str(kind.slices)
        dataset.ImagePositionPatient = [decimal_string(mm) for mm in truth.corners_mm[place]]
        dataset.ImageOrientationPatient = [decimal_string(cosine, 12) for cosine in cosines]
        dataset.PixelSpacing = [decimal_string(mm) for mm in (rows_mm, columns_mm)]
        dataset.SliceThickness = dataset.SpacingBetweenSlices = decimal_string(_gap_mm(kind))
        dataset.SliceLocation = decimal_string(truth.corners_mm[place][2])
        dataset.GantryDetectorTilt = str(TILT_DEG if kind.trait is Trait.TILTED else 0)
        dataset.RescaleSlope = decimal_string(truth.slopes[place])
        dataset.PixelData = truth.stored[place].tobytes()
        dataset["PixelData"].VR = "OW"
        return dataset


def _stored(dataset: Dataset) -> npt.NDArray[np.uint16]:
    flat = np.frombuffer(dataset.PixelData, dtype="<u2")
    return flat.reshape(dataset.Rows, dataset.Columns)


def _gap_mm(kind: Kind) -> float:
    return COVERAGE_MM / kind.slices


def _files(kind: Kind) -> Iterator[tuple[int, int]]:
    """Places and UIDs in the order of instance numbers: from the top, as some scanners do."""
    middle = kind.slices // 2
    for uid, place in enumerate(reversed(range(kind.slices))):
        if kind.trait is Trait.MISSING and place == middle:
            continue
        yield place, uid
        if kind.trait is Trait.DUPLICATE and place == middle:
            yield place, kind.slices


def _truth(kind: Kind, drawn: list[npt.NDArray[np.uint16]]) -> Truth:
    rows_mm, columns_mm = ANISOTROPIC_MM if kind.trait is Trait.ANISOTROPIC else (0.45, 0.45)
    tilt = math.radians(TILT_DEG if kind.trait is Trait.TILTED else 0.0)
    row_axis = np.array((0.0, math.cos(tilt), -math.sin(tilt))) * rows_mm
    steps = np.arange(kind.slices, dtype=np.float64)
    rows, columns = drawn[0].shape
    corner = np.array((-columns_mm * columns / 2, -rows_mm * rows / 2, -COVERAGE_MM / 2))
    slope_step = _SLOPE_STEP if kind.trait is Trait.SLOPES else 0.0
    return Truth(
        stored=np.stack(
            [np.roll(drawn[k % len(drawn)], _ROLL_ROWS * k, axis=0) for k in range(kind.slices)]
        ),
        slopes=np.round(1.0 + slope_step * steps, 6),
        intercept=float(STYLES[Style.SIEMENS].rescale_intercept),
        corners_mm=corner + steps[:, np.newaxis] * np.array((0.0, 0.0, _gap_mm(kind))),
        axes_mm=np.stack([np.array((columns_mm, 0.0, 0.0)), row_axis]),
    )


def _without_lost(kind: Kind, truth: Truth) -> Truth:
    if kind.trait is not Trait.MISSING:
        return truth
    kept = np.arange(kind.slices) != kind.slices // 2
    return dataclasses.replace(
        truth,
        stored=truth.stored[kept],
        slopes=truth.slopes[kept],
        corners_mm=truth.corners_mm[kept],
    )
