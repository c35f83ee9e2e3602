"""What is sent: objects as scanners make them, with noise for pixels and placeholders for UIDs.

The same object goes out many times under fresh UIDs. A receiver does the same work as for
different ones: none looks at the pixels, and all see other UIDs.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.file_meta import IMPLEMENTATION_CLASS_UID
from tools.bench.ingest.messages import noise_bytes
from tools.bench.ingest.names import LoadName

_PIXEL_DATA_OW = b"\xe0\x7f\x10\x00OW\x00\x00"
_UID_DIGITS = 39  # of a 128-bit number: "2.25." and these are 44 characters, an even number
_COUNTER_DIGITS = 9
_REFERENCED_UID = "2.25.123456789012345678901234567890"
_FRAME_OF_REFERENCE_UID = "2.25.234567890123456789012345678901"


def _placeholder(digit: int) -> str:
    return "2.25.1" + str(digit) * (_UID_DIGITS - 1)


STUDY_PLACEHOLDER = _placeholder(1)
SERIES_PLACEHOLDER = _placeholder(2)
INSTANCE_PLACEHOLDER = _placeholder(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A kind of object, and how many of them one run sends."""

    name: LoadName
    title: str
    modality: str
    sop_class_uid: str
    rows: int
    columns: int
    frames: int
    instances: int

    @property
    def pixel_bytes(self) -> int:
        """Length of the value of Pixel Data, 16 bits a pixel."""
        return self.rows * self.columns * self.frames * 2


LOADS = {
    load.name: load
    for load in (
        Load(
            name=LoadName.CT,
            title="CT slices, 526 KB",
            modality="CT",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            rows=512,
            columns=512,
            frames=1,
            instances=400,
        ),
        Load(
            name=LoadName.SMALL,
            title="MR slices, 64 KB",
            modality="MR",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
            rows=176,
            columns=176,
            frames=1,
            instances=1000,
        ),
        Load(
            name=LoadName.RADIOGRAPH,
            title="radiographs, 10 MB",
            modality="DX",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
            rows=2500,
            columns=2048,
            frames=1,
            instances=16,
        ),
        Load(
            name=LoadName.HUGE,
            title="one multi-frame object, 2 GB",
            modality="CT",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2.1",
            rows=512,
            columns=512,
            frames=3_814,  # just below 2 GB, which is also below 2 to the 31
            instances=1,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshUids:
    """UIDs for one run, all of the placeholders' length."""

    prefix: str
    """Of 30 digits; nobody else has it."""

    @property
    def study(self) -> str:
        """The study of the run."""
        return self._uid(0)

    def series(self, association: int) -> str:
        """The series that an association sends."""
        return self._uid(1 + association)

    def instance(self, number: int) -> str:
        """The instance with a number of the run."""
        return self._uid(1_000_000 + number)

    def _uid(self, number: int) -> str:
        return f"2.25.{self.prefix}{number:0{_COUNTER_DIGITS}d}"


def fresh_uids() -> FreshUids:
    """Return UIDs that were never used."""
    digits = _UID_DIGITS - _COUNTER_DIGITS - 1
    return FreshUids(prefix=f"1{secrets.randbelow(10**digits):0{digits}d}")


def make_head(load: Load) -> bytes:
    """Return the data set in explicit little endian, up to the value of Pixel Data."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, _data_set(load))
    return stream.getvalue() + _PIXEL_DATA_OW + load.pixel_bytes.to_bytes(4, "little")


def make_noise(load: Load) -> bytes:
    """Return what the pixels are made of; no disk makes it smaller."""
    return random.Random(1).randbytes(noise_bytes(load.pixel_bytes))  # noqa: S311 - pixels, no secret


def write_file(load: Load, path: Path) -> None:
    """Write the object as a file, for senders that read files."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(load.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(INSTANCE_PLACEHOLDER)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_file_meta_info(encoded, meta)
    noise = make_noise(load)
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM" + encoded.getvalue() + make_head(load))
        left = load.pixel_bytes
        while left > 0:
            left -= file.write(noise[:left])


def _data_set(load: Load) -> Dataset:
    """As many elements as a scanner writes, a sequence and a private block among them."""
    ds = Dataset()
    _describe_patient(ds, load)
    _describe_acquisition(ds, load)
    _describe_image(ds, load)
    return ds


def _describe_patient(ds: Dataset, load: Load) -> None:
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = load.sop_class_uid
    ds.SOPInstanceUID = INSTANCE_PLACEHOLDER
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20250101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101010.000000"
    ds.AccessionNumber = "BENCH"
    ds.Modality = load.modality
    ds.Manufacturer = "Edge Triage"
    ds.InstitutionName = "Bench"
    ds.ReferringPhysicianName = "Bench^Refers"
    ds.StudyDescription = "Bench ingest"
    ds.SeriesDescription = load.title
    ds.ManufacturerModelName = "Bench"
    ds.StationName = "BENCH"
    ds.PatientName = "Bench^Ingest"
    ds.PatientID = "BENCH-INGEST"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.PatientAge = "055Y"


def _describe_acquisition(ds: Dataset, load: Load) -> None:
    references = []
    for _ in range(2):
        reference = Dataset()
        reference.ReferencedSOPClassUID = load.sop_class_uid
        reference.ReferencedSOPInstanceUID = _REFERENCED_UID
        references.append(reference)
    ds.ReferencedImageSequence = references
    ds.BodyPartExamined = "HEAD"
    ds.ProtocolName = "Bench"
    ds.SoftwareVersions = "1"
    if load.modality == "CT":
        ds.KVP = "120"
        ds.SliceThickness = "1.0"
        ds.DataCollectionDiameter = "500"
        ds.ReconstructionDiameter = "250"
        ds.GantryDetectorTilt = "0"
        ds.ExposureTime = "1000"
        ds.XRayTubeCurrent = "300"
        ds.ConvolutionKernel = "H30s"
        ds.RescaleIntercept = "-1024"
        ds.RescaleSlope = "1"
        ds.RescaleType = "HU"
    ds.PatientPosition = "HFS"
    block = ds.private_block(0x0029, "BENCH INGEST", create=True)
    block.add_new(0x10, "OB", bytes(range(250)) * 8)


def _describe_image(ds: Dataset, load: Load) -> None:
    ds.StudyInstanceUID = STUDY_PLACEHOLDER
    ds.SeriesInstanceUID = SERIES_PLACEHOLDER
    ds.StudyID = "1"
    ds.SeriesNumber = ds.AcquisitionNumber = ds.InstanceNumber = 1
    ds.FrameOfReferenceUID = _FRAME_OF_REFERENCE_UID
    ds.ImagePositionPatient = [-125, -125, 0]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.SliceLocation = "0"
    if load.frames > 1:
        ds.NumberOfFrames = load.frames
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = load.rows, load.columns
    ds.PixelSpacing = [0.5, 0.5]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 0
    ds.WindowCenter, ds.WindowWidth = "40", "80"
