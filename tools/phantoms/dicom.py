"""A drawn slice as a DICOM object: CT Image Storage (PS3.3 A.3), complete enough for validators."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from tools.phantoms.frame import SliceGeometry
from tools.phantoms.headers import (
    PhantomIdentity,
    StyleRules,
    decimal_string,
    derived_uid,
)
from tools.phantoms.spec import Acquisition

IMPLEMENTATION_CLASS_UID = derived_uid("implementation", "phantoms")
IMPLEMENTATION_VERSION_NAME = "EDGE_PHANTOM_1"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyHeader:
    """What all objects of one study share."""

    study_uid: UID
    frame_of_reference_uid: UID
    identity: PhantomIdentity
    acquired: dt.datetime
    description: str
    style: StyleRules


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What one image has of its own."""

    series_uid: UID
    series_number: int
    series_description: str
    sop_uid: UID
    instance_number: int
    images_in_acquisition: int
    image_type: tuple[str, ...]
    geometry: SliceGeometry
    acquisition: Acquisition
    table_mm: tuple[float, float, float]
    """Added to the geometry's positions: scanners do not put the head at the origin."""
    contrast: bool = False


def ct_dataset(study: StudyHeader, image: ImageHeader, hu: NDArray[np.int16]) -> Dataset:
    """One CT image, uncompressed, explicit little endian.

    Args:
        study: of the whole study.
        image: of this image.
        hu: (rows, columns), Hounsfield units in -1024..3071.
    """
    dataset = Dataset()
    dataset.file_meta = file_meta(CTImageStorage, image.sop_uid)
    add_study(dataset, study)
    _add_series(dataset, study, image)
    _add_scan(dataset, study, image)
    _add_plane(dataset, study, image)
    _add_pixels(dataset, study.style, hu)
    return dataset


def file_meta(sop_class: UID, sop_uid: UID) -> FileMetaDataset:
    """File meta information (PS3.10 7.1) for explicit little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = sop_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def add_study(dataset: Dataset, study: StudyHeader) -> None:
    """Patient, General Study and General Equipment modules."""
    who = study.identity
    date, time = f"{study.acquired:%Y%m%d}", f"{study.acquired:%H%M%S}"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = who.patient_name
    dataset.PatientID = who.patient_id
    dataset.PatientBirthDate = f"{who.birth_date:%Y%m%d}"
    dataset.PatientSex = who.sex
    dataset.PatientAge = f"{(study.acquired.date() - who.birth_date).days // 365:03d}Y"
    dataset.StudyInstanceUID = study.study_uid
    dataset.StudyDate = date
    dataset.StudyTime = time
    dataset.StudyID = "1"
    dataset.StudyDescription = study.description
    dataset.AccessionNumber = who.accession_number
    dataset.ReferringPhysicianName = "REFERRER^PHANTOM"
    dataset.Manufacturer = study.style.manufacturer
    dataset.ManufacturerModelName = study.style.model
    dataset.SoftwareVersions = study.style.software
    dataset.DeviceSerialNumber = "PHANTOM"
    dataset.InstitutionName = "PHANTOM HOSPITAL"
    dataset.StationName = "PHANTOMCT"


def _add_series(dataset: Dataset, study: StudyHeader, image: ImageHeader) -> None:
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = image.series_uid
    dataset.SeriesNumber = str(image.series_number)
    dataset.SeriesDescription = image.series_description
    dataset.SeriesDate = dataset.StudyDate
    dataset.SeriesTime = dataset.StudyTime
    dataset.ProtocolName = study.style.protocol
    dataset.BodyPartExamined = study.style.body_part
    dataset.PatientPosition = "HFS"
    dataset.FrameOfReferenceUID = study.frame_of_reference_uid
    dataset.PositionReferenceIndicator = ""


def _add_scan(dataset: Dataset, study: StudyHeader, image: ImageHeader) -> None:
    scan = image.acquisition
    moment = study.acquired + dt.timedelta(milliseconds=125 * image.instance_number)
    dataset.ImageType = list(image.image_type)
    dataset.AcquisitionNumber = "1"
    dataset.InstanceNumber = str(image.instance_number)
    if study.style.writes_image_count:
        dataset.ImagesInAcquisition = str(image.images_in_acquisition)
    for kind in ("Acquisition", "Content", "InstanceCreation"):
        setattr(dataset, f"{kind}Date", f"{moment:%Y%m%d}")
        setattr(dataset, f"{kind}Time", f"{moment:%H%M%S.%f}")
    if study.style.scan_options:
        dataset.ScanOptions = study.style.scan_options
    if study.style.filter_type:
        dataset.FilterType = study.style.filter_type
    dataset.KVP = str(scan.kvp)
    dataset.ExposureTime = "1000"
    dataset.XRayTubeCurrent = str(round(scan.tube_mas))
    dataset.Exposure = str(round(scan.tube_mas))
    dataset.ConvolutionKernel = study.style.kernels[scan.kernel]
    dataset.GantryDetectorTilt = decimal_string(scan.gantry_tilt_deg, 1)
    dataset.TableHeight = "150"
    dataset.RotationDirection = "CW"
    dataset.DataCollectionDiameter = "500"
    dataset.ReconstructionDiameter = decimal_string(scan.pixel_mm * scan.matrix, 1)
    if image.contrast:
        dataset.ContrastBolusAgent = "PHANTOM AGENT 300"
        dataset.ContrastBolusRoute = "IV"
        dataset.ContrastBolusVolume = "80"


def _add_plane(dataset: Dataset, study: StudyHeader, image: ImageHeader) -> None:
    geometry = image.geometry
    digits = study.style.decimals
    position = [p + t for p, t in zip(geometry.position_mm, image.table_mm, strict=True)]
    cosines = (*geometry.row_cosines, *geometry.column_cosines)
    along = sum(p * n for p, n in zip(position, geometry.normal, strict=True))
    dataset.ImagePositionPatient = [decimal_string(value, digits) for value in position]
    dataset.ImageOrientationPatient = [decimal_string(value, 6) for value in cosines]
    dataset.PixelSpacing = [decimal_string(geometry.pixel_mm, 6)] * 2
    dataset.SliceThickness = decimal_string(geometry.thickness_mm, digits)
    dataset.SpacingBetweenSlices = decimal_string(image.acquisition.spacing_mm, digits)
    dataset.SliceLocation = decimal_string(along, digits)


def _add_pixels(dataset: Dataset, style: StyleRules, hu: NDArray[np.int16]) -> None:
    stored = hu - np.int16(style.rescale_intercept)
    if style.padding is not None:
        stored[_outside_circle(hu.shape[0])] = style.padding
        dataset.add_new("PixelPaddingValue", "SS" if style.signed else "US", style.padding)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = hu.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16 if style.signed else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(style.signed)
    dataset.RescaleIntercept = str(style.rescale_intercept)
    dataset.RescaleSlope = "1"
    if "LOCALIZER" not in dataset.ImageType:
        dataset.RescaleType = "HU"
    dataset.WindowCenter = [str(centre) for centre, _ in style.windows]
    dataset.WindowWidth = [str(width) for _, width in style.windows]
    dataset.PixelData = stored.astype("<i2" if style.signed else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _outside_circle(side: int) -> NDArray[np.bool_]:
    """Pixels outside the circle that the scanner reconstructs: (side, side)."""
    axis = np.arange(side) - (side - 1) / 2
    outside: NDArray[np.bool_] = axis[:, None] ** 2 + axis[None, :] ** 2 > (side / 2) ** 2
    return outside
