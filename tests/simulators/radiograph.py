"""A frontal chest radiograph as a detector would send it, written by pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

ROWS, COLUMNS = 320, 256
BITS = 12


def write_radiograph(
    path: Path,
    *,
    modality: str = "DX",
    photometric: str = "MONOCHROME2",
    age: str = "045Y",
    view: str = "PA",
    study: str = "1.2.7",
) -> None:
    """Write one radiograph: two dark lungs in a grey body."""
    is_dx = modality == "DX"
    dataset = Dataset()
    dataset.SOPClassUID = (
        DigitalXRayImageStorageForPresentation if is_dx else ComputedRadiographyImageStorage
    )
    dataset.SOPInstanceUID = f"{study}.1.1"
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = f"{study}.1"
    dataset.Modality = modality
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    if is_dx:
        dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientName = "Canary^Dora"
    dataset.PatientID = "CANARY-19"
    dataset.PatientAge = age
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = view
    dataset.InstanceNumber = 1
    dataset.ImagerPixelSpacing = [1.2, 1.2]
    dataset.PixelSpacing = [1.2, 1.2]
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 16
    dataset.BitsStored = BITS
    dataset.HighBit = BITS - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope = 1
    dataset.RescaleIntercept = 0
    dataset.PixelData = _pixels(inverted=photometric == "MONOCHROME1").tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)


def _pixels(*, inverted: bool) -> NDArray[np.uint16]:
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    lungs = ((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.6) ** 2 < 1
    grey = np.where(lungs, 900, 2600) + np.random.default_rng(5).normal(0, 40, lungs.shape)
    stored = np.clip(grey, 0, 2**BITS - 1).astype("<u2")
    shown: NDArray[np.uint16] = (2**BITS - 1 - stored).astype("<u2") if inverted else stored
    return shown
