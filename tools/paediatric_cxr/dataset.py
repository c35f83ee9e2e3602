"""The radiographs: what their names say, who belongs to which set, and their pixels.

Kermany, Zhang, Goldbaum (2018): Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images
for Classification, Mendeley Data V2, doi 10.17632/rscbjbr9sj.2, CC BY 4.0. Download it from there
and unpack it; any folder works that holds ``NORMAL/*.jpeg`` and ``PNEUMONIA/*.jpeg`` at any depth,
in the original size or smaller, and all facts come from the file names.

Patients, never images, are dealt out to sets. A patient is told by the number in the file name.
``IM-0115`` and ``NORMAL2-IM-0115`` may be one child or two: they are kept together, as are
``person1_bacteria`` and ``person1_virus``. Whether a child with pneumonia also has a normal
radiograph under another number cannot be known from the names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.paediatric_cxr.errors import DataSetError

ATTRIBUTION = (
    "Kermany D, Zhang K, Goldbaum M (2018): Labeled Optical Coherence Tomography (OCT) and Chest "
    "X-Ray Images for Classification. Mendeley Data, V2. doi 10.17632/rscbjbr9sj.2. CC BY 4.0."
)

MAX_SIDE = 8192
"""Of a picture, in pixels; radiographs stay below 5000."""
TRAINING_SHARE = 0.70
CALIBRATION_SHARE = 0.12
SPLIT = "paediatric-cxr-1"
"""Mixed into the hash that deals out patients: another word deals them out anew."""

_NORMAL = re.compile(r"(?:NORMAL\d*-)?IM-(?P<number>\d+)-\d+(?:-\d+)?\.jpe?g")
_PNEUMONIA = re.compile(r"person(?P<number>\d+)_(?P<cause>bacteria|virus)_\d+(?:_\d+)?\.jpe?g")


class Cause(str, Enum):
    """What the file name says of a radiograph."""

    NONE = "none"
    """Read as normal."""
    BACTERIA = "bacteria"
    VIRUS = "virus"


class DataSplit(str, Enum):
    """What a patient's radiographs are used for."""

    TRAINING = "training"
    CALIBRATION = "calibration"
    """Calibration and operating point."""
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiograph:
    """One file of the data set."""

    path: Path
    patient: str
    cause: Cause

    @property
    def positive(self) -> bool:
        """True for pneumonia."""
        return self.cause is not Cause.NONE

    @property
    def split(self) -> DataSplit:
        """The set of the patient."""
        return split_of(self.patient)


def parse_name(path: Path) -> Radiograph:
    """What a file's name and folder say.

    Raises:
        DataSetError: they are not of the data set.
    """
    if path.parent.name == "NORMAL" and (found := _NORMAL.fullmatch(path.name)):
        return Radiograph(path=path, patient=f"normal-{int(found['number'])}", cause=Cause.NONE)
    if path.parent.name == "PNEUMONIA" and (found := _PNEUMONIA.fullmatch(path.name)):
        patient = f"person-{int(found['number'])}"
        return Radiograph(path=path, patient=patient, cause=Cause(found["cause"]))
    raise DataSetError(
        f"{path.parent.name}/{path.name}: not a name of the data set; expected such as "
        "NORMAL/IM-0115-0001.jpeg or PNEUMONIA/person1_bacteria_1.jpeg"
    )


def split_of(patient: str) -> DataSplit:
    """The set of a patient: by a hash, so that it hangs on nothing but the name."""
    digest = hashlib.sha256(f"{SPLIT}|{patient}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < TRAINING_SHARE:
        return DataSplit.TRAINING
    if share < TRAINING_SHARE + CALIBRATION_SHARE:
        return DataSplit.CALIBRATION
    return DataSplit.TEST


def find_radiographs(folder: Path) -> tuple[Radiograph, ...]:
    """All radiographs under ``folder``, in the order of their names.

    Raises:
        DataSetError: there are none, or a name is not of the data set.
    """
    paths = [path for label in ("NORMAL", "PNEUMONIA") for path in folder.rglob(f"{label}/*.jp*g")]
    if not paths:
        raise DataSetError(
            f"no NORMAL/*.jpeg or PNEUMONIA/*.jpeg under {folder}; see the top of "
            "tools/paediatric_cxr/dataset.py for where to get the data"
        )
    return tuple(sorted((parse_name(path) for path in paths), key=lambda found: found.path))


def of_split(radiographs: Sequence[Radiograph], split: DataSplit) -> tuple[Radiograph, ...]:
    """Those of one set."""
    return tuple(radiograph for radiograph in radiographs if radiograph.split is split)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """The picture as (rows, columns) of 0 to 255, larger is brighter.

    Raises:
        DataSetError: it is no readable picture, or unreasonably large.
    """
    try:
        with Image.open(path) as picture:
            if max(picture.size) > MAX_SIDE:
                raise DataSetError(f"{path.name}: larger than {MAX_SIDE} pixels")
            return np.asarray(picture.convert("L"))
    except OSError as error:
        raise DataSetError(f"{path.name}: cannot be read; download the data anew") from error
