"""Make DICOM radiographs of the data set's pictures, for pushing at a device.

``python -m tools.paediatric_cxr.wrap --data DATA --out FOLDER`` writes test radiographs as DX and
CR objects, MONOCHROME1 and MONOCHROME2, 10 to 16 bits, with invented identities and ages. The
pictures stay the data set's (CC BY 4.0): whoever passes them on names it, and they are never
committed.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tools.paediatric_cxr.dataset import (
    DataSplit,
    Radiograph,
    find_radiographs,
    of_split,
    read_pixels,
)
from tools.paediatric_cxr.errors import WrapError
from tools.phantoms.chest_studies import BITS, ChestName, chest_identity
from tools.phantoms.headers import DEFAULT_ACQUIRED, derived_uid
from tools.phantoms.radiograph import (
    RadiographHeader,
    RadiographKind,
    RadiographStudy,
    View,
    radiograph_dataset,
)

KINDS = (RadiographKind.DX, RadiographKind.CR, RadiographKind.DX_RAW)
PIXEL_MM = 1.2
"""Of a picture of 224 pixels: a child's chest is some 27 cm across. The true size is not known."""
AP_SHARE = 0.8
SAMPLES_PER_BYTE = 4.0
"""Rough compression of the data set's JPEG files: its pictures come with that loss."""


def wrap(
    radiograph: Radiograph,
    number: int,
    *,
    kind: RadiographKind | None = None,
    acquired: dt.datetime = DEFAULT_ACQUIRED,
) -> Dataset:
    """One picture of the data set as a DICOM object of an invented child.

    Args:
        radiograph: of the data set.
        number: decides identity, age, view, bits, photometric interpretation and, when ``kind``
            is None, whether it is a DX or a CR image.
        kind: object class; DX_RAW is what the device must refuse.
        acquired: time of the study.

    Raises:
        WrapError: the number is negative.
        DataSetError: the picture cannot be read.
    """
    if number < 0:
        raise WrapError("number must be 0 or more")
    rng = np.random.default_rng([number, 51])
    uid = derived_uid("wrapped", number, acquired)
    drawn = KINDS[int(rng.integers(2))]
    image = RadiographHeader(
        kind=kind or drawn,
        series_uid=derived_uid(uid, "series"),
        sop_uid=derived_uid(uid, "image"),
        view=View.AP if rng.random() < AP_SHARE else View.PA,
        inverted=bool(rng.integers(2)),
        bits=int(rng.choice(BITS)),
        pixel_mm=PIXEL_MM,
        lossy_ratio=SAMPLES_PER_BYTE,
    )
    study = RadiographStudy(
        study_uid=uid,
        identity=chest_identity(ChestName.DX, number, acquired=acquired),
        acquired=acquired,
    )
    density = read_pixels(radiograph.path).astype(np.float32) / np.float32(255)
    return radiograph_dataset(study, image, density)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the objects; the folder tells the label, nothing else does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the DICOM files")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--kind", choices=[kind.value for kind in KINDS], help="default: DX and CR")
    options = parser.parse_args(arguments)
    test = of_split(find_radiographs(options.data), DataSplit.TEST)
    order = np.random.default_rng(52).permutation(len(test))[: options.count]
    for number, place in enumerate(order):
        radiograph = test[int(place)]
        dataset = wrap(
            radiograph, number, kind=RadiographKind(options.kind) if options.kind else None
        )
        folder = options.out / ("pneumonia" if radiograph.positive else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)
    print(f"{len(order)} radiographs in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
