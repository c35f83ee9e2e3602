"""A picture as a DICOM radiograph: DX (PS3.3 A.26) or CR (PS3.3 A.2), complete for validators."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from tools.phantoms.dicom import file_meta
from tools.phantoms.errors import PhantomUsageError
from tools.phantoms.headers import PhantomIdentity, decimal_string

MIN_BITS, MAX_BITS = 10, 16
RAW_DECAY = 4.0
"""Of the detector's signal from no density to full: e to the minus fourth."""


class RadiographKind(str, Enum):
    """Object class and what the values are for."""

    DX = "dx"
    """For Presentation."""
    DX_RAW = "dx-raw"
    """For Processing: what the detector measured."""
    CR = "cr"

    @property
    def sop_class(self) -> UID:
        """SOP Class UID (PS3.4 B.5)."""
        return _SOP_CLASSES[self]


_SOP_CLASSES = {
    RadiographKind.DX: DigitalXRayImageStorageForPresentation,
    RadiographKind.DX_RAW: DigitalXRayImageStorageForProcessing,
    RadiographKind.CR: ComputedRadiographyImageStorage,
}


class View(str, Enum):
    """ViewPosition (0018,5101), PS3.3 C.8.7.1.1.1."""

    AP = "AP"
    PA = "PA"
    LATERAL = "LL"

    @property
    def patient_orientation(self) -> list[str]:
        """Directions of rows and columns (PS3.3 C.7.6.1.1.1)."""
        return ["A", "F"] if self is View.LATERAL else ["L", "F"]


_VIEW_CODES = {
    View.AP: ("399348003", "Antero-posterior"),
    View.PA: ("272479007", "Postero-anterior"),
    View.LATERAL: ("399173006", "Left lateral"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiographStudy:
    """What all radiographs of one study share."""

    study_uid: UID
    identity: PhantomIdentity
    acquired: dt.datetime
    knows_age: bool = True
    """False leaves age and birth date empty, as emergency admissions do."""
    manufacturer: str = "AURORA PHANTOM WORKS"
    model: str = "Aurora Flat"


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiographHeader:
    """What one radiograph has of its own."""

    kind: RadiographKind
    series_uid: UID
    sop_uid: UID
    series_number: int = 1
    view: View | None = View.AP
    """None leaves ViewPosition empty."""
    inverted: bool = False
    """MONOCHROME1: larger values are darker."""
    bits: int = 12
    pixel_mm: float | None = 0.15
    """At the detector; CR may leave it out."""
    lossy_ratio: float | None = None
    """How far the picture was compressed with loss before it came here; None: not at all."""


def radiograph_dataset(
    study: RadiographStudy, image: RadiographHeader, density: NDArray[np.float32]
) -> Dataset:
    """One radiograph, uncompressed, explicit little endian.

    Args:
        study: of the whole study.
        image: of this image.
        density: (rows, columns), 0 to 1, larger is denser and to be shown brighter.

    Raises:
        PhantomUsageError: the bits are not 10 to 16, or the object class needs what is missing.
    """
    if not MIN_BITS <= image.bits <= MAX_BITS:
        raise PhantomUsageError(f"bits must be {MIN_BITS} to {MAX_BITS}")
    if image.kind is not RadiographKind.CR and image.pixel_mm is None:
        raise PhantomUsageError("a DX image needs 'pixel_mm' (PS3.3 C.8.11.4)")
    dataset = Dataset()
    dataset.file_meta = file_meta(image.kind.sop_class, image.sop_uid)
    _add_patient_and_study(dataset, study)
    _add_series(dataset, study, image)
    _add_image(dataset, study, image)
    _add_pixels(dataset, image, density)
    if image.kind is not RadiographKind.CR:
        _add_dx(dataset, image)
    return dataset


def age_string(born: dt.date, on: dt.date) -> str:
    """An AS (PS3.5 6.2): years, below two years months."""
    months = (on.year - born.year) * 12 + on.month - born.month - (on.day < born.day)
    return f"{months:03d}M" if months < 24 else f"{months // 12:03d}Y"


def _add_patient_and_study(dataset: Dataset, study: RadiographStudy) -> None:
    who = study.identity
    date, time = f"{study.acquired:%Y%m%d}", f"{study.acquired:%H%M%S}"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = who.patient_name
    dataset.PatientID = who.patient_id
    dataset.PatientBirthDate = f"{who.birth_date:%Y%m%d}" if study.knows_age else ""
    dataset.PatientSex = who.sex
    if study.knows_age:
        dataset.PatientAge = age_string(who.birth_date, study.acquired.date())
    dataset.StudyInstanceUID = study.study_uid
    dataset.StudyDate = date
    dataset.StudyTime = time
    dataset.StudyID = "1"
    dataset.StudyDescription = "XR CHEST"
    dataset.AccessionNumber = who.accession_number
    dataset.ReferringPhysicianName = "REFERRER^PHANTOM"
    dataset.Manufacturer = study.manufacturer
    dataset.ManufacturerModelName = study.model
    dataset.SoftwareVersions = "xr_1.0"
    dataset.DeviceSerialNumber = "PHANTOM"
    dataset.InstitutionName = "PHANTOM HOSPITAL"
    dataset.StationName = "PHANTOMXR"


def _add_series(dataset: Dataset, study: RadiographStudy, image: RadiographHeader) -> None:
    is_cr = image.kind is RadiographKind.CR
    dataset.Modality = "CR" if is_cr else "DX"
    dataset.SeriesInstanceUID = image.series_uid
    dataset.SeriesNumber = str(image.series_number)
    dataset.SeriesDescription = f"CHEST {image.view.value if image.view else ''}".strip()
    dataset.SeriesDate = dataset.StudyDate
    dataset.SeriesTime = dataset.StudyTime
    dataset.BodyPartExamined = "CHEST"
    if is_cr or image.view is not None:
        dataset.ViewPosition = image.view.value if image.view else ""
    if not is_cr:
        raw = image.kind is RadiographKind.DX_RAW
        dataset.PresentationIntentType = "FOR PROCESSING" if raw else "FOR PRESENTATION"
    dataset.ProtocolName = "CHEST CHILD" if study.knows_age else "CHEST"


def _add_image(dataset: Dataset, study: RadiographStudy, image: RadiographHeader) -> None:
    is_cr = image.kind is RadiographKind.CR
    # A radiograph has no third value of its own, but DX wants its place (PS3.3 C.8.11.3.1.1).
    dataset.ImageType = ["ORIGINAL", "PRIMARY"] if is_cr else ["ORIGINAL", "PRIMARY", ""]
    dataset.InstanceNumber = "1"
    dataset.AcquisitionNumber = "1"
    for kind in ("Acquisition", "Content", "InstanceCreation"):
        setattr(dataset, f"{kind}Date", f"{study.acquired:%Y%m%d}")
        setattr(dataset, f"{kind}Time", f"{study.acquired:%H%M%S}")
    view = image.view or View.AP
    dataset.PatientOrientation = view.patient_orientation
    dataset.KVP = "70"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    if image.lossy_ratio is not None:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = decimal_string(image.lossy_ratio, 1)
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
    if image.pixel_mm is not None:
        dataset.ImagerPixelSpacing = [decimal_string(image.pixel_mm, 4)] * 2


def _add_pixels(dataset: Dataset, image: RadiographHeader, density: NDArray[np.float32]) -> None:
    most = 2**image.bits - 1
    values = density.astype(np.float64)
    if image.kind is RadiographKind.DX_RAW:
        values = 1 - np.exp(-RAW_DECAY * values)
    if image.inverted:
        values = 1 - values
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if image.inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = density.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = image.bits
    dataset.HighBit = image.bits - 1
    dataset.PixelRepresentation = 0
    if image.kind is not RadiographKind.DX_RAW:
        dataset.WindowCenter = str((most + 1) // 2)
        dataset.WindowWidth = str(most + 1)
    dataset.PixelData = np.clip(np.rint(values * most), 0, most).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _add_dx(dataset: Dataset, image: RadiographHeader) -> None:
    """DX Series, DX Anatomy Imaged, DX Image, DX Detector, DX Positioning, Acquisition Context."""
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([_code("51185008", "Chest")])
    dataset.PixelIntensityRelationship = "LIN" if image.kind is RadiographKind.DX_RAW else "LOG"
    # Larger densities let less through: the sign says how values go with the X-ray's intensity.
    dataset.PixelIntensityRelationshipSign = 1 if image.inverted else -1
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "US"
    dataset.PresentationLUTShape = "INVERSE" if image.inverted else "IDENTITY"
    dataset.AcquisitionContextSequence = Sequence([])
    dataset.DetectorType = "DIRECT"
    dataset.DetectorID = "PHANTOM"
    if image.view is not None:
        dataset.PositionerType = "COLUMN"
        dataset.ViewCodeSequence = Sequence([_code(*_VIEW_CODES[image.view])])
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence([])


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = "SCT"
    code.CodeMeaning = meaning
    return code
