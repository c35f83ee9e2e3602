"""From a stored file to its header and its identity, with bounded reads.

The only attributes without which an instance cannot be taken are the UIDs that identify it and
its class. Any other value that is absent, odd or undecodable becomes ``None``.

Nearly all of a header is the same for every image of a series: what was made of the same bytes a
moment ago is used again.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from pydicom import uid

from dicom_node import values
from dicom_node.errors import DataSetUnreadableError
from dicom_node.file_meta import FileMeta, read_file_meta
from dicom_node.instance import InstanceHeader, StudyIdentity, Vector3, Vector6
from dicom_node.lookalikes import Lookalikes
from dicom_node.scanner import BLOCK_BYTES, PIXEL_DATA, Encoding, ReadAt, Scan, scan_data_set
from dicom_node.uids import is_valid_uid


class _Tag(IntEnum):
    """The attributes that are read: group << 16 | element."""

    SPECIFIC_CHARACTER_SET = 0x00080005
    IMAGE_TYPE = 0x00080008
    SOP_CLASS_UID = 0x00080016
    SOP_INSTANCE_UID = 0x00080018
    STUDY_DATE = 0x00080020
    STUDY_TIME = 0x00080030
    ACCESSION_NUMBER = 0x00080050
    MODALITY = 0x00080060
    PRESENTATION_INTENT_TYPE = 0x00080068
    MANUFACTURER = 0x00080070
    REFERRING_PHYSICIAN_NAME = 0x00080090
    STUDY_DESCRIPTION = 0x00081030
    PATIENT_NAME = 0x00100010
    PATIENT_ID = 0x00100020
    PATIENT_BIRTH_DATE = 0x00100030
    PATIENT_SEX = 0x00100040
    PATIENT_AGE = 0x00101010
    CONTRAST_BOLUS_AGENT = 0x00180010
    BODY_PART_EXAMINED = 0x00180015
    SLICE_THICKNESS = 0x00180050
    SPACING_BETWEEN_SLICES = 0x00180088
    GANTRY_DETECTOR_TILT = 0x00181120
    VIEW_POSITION = 0x00185101
    CONVOLUTION_KERNEL = 0x00181210
    IMAGER_PIXEL_SPACING = 0x00181164
    STUDY_INSTANCE_UID = 0x0020000D
    SERIES_INSTANCE_UID = 0x0020000E
    STUDY_ID = 0x00200010
    SERIES_NUMBER = 0x00200011
    ACQUISITION_NUMBER = 0x00200012
    INSTANCE_NUMBER = 0x00200013
    IMAGE_POSITION_PATIENT = 0x00200032
    IMAGE_ORIENTATION_PATIENT = 0x00200037
    FRAME_OF_REFERENCE_UID = 0x00200052
    IMAGES_IN_ACQUISITION = 0x00201002
    SAMPLES_PER_PIXEL = 0x00280002
    PHOTOMETRIC_INTERPRETATION = 0x00280004
    NUMBER_OF_FRAMES = 0x00280008
    ROWS = 0x00280010
    COLUMNS = 0x00280011
    PIXEL_SPACING = 0x00280030
    BITS_ALLOCATED = 0x00280100
    BITS_STORED = 0x00280101
    PIXEL_REPRESENTATION = 0x00280103
    PIXEL_PADDING_VALUE = 0x00280120
    PIXEL_PADDING_RANGE_LIMIT = 0x00280121
    RESCALE_INTERCEPT = 0x00281052
    RESCALE_SLOPE = 0x00281053
    LOSSY_IMAGE_COMPRESSION = 0x00282110


_WANTED = frozenset(int(tag) for tag in _Tag)
# What differs from one image of a series to the next: tags, and fields of the header.
_OWN_TAGS = frozenset({_Tag.SOP_INSTANCE_UID, _Tag.INSTANCE_NUMBER, _Tag.IMAGE_POSITION_PATIENT})
_OWN_FIELDS = frozenset(
    {
        "sop_instance_uid",
        "instance_number",
        "image_position_mm",
        "has_pixel_data",
        "pixel_data_offset",
        "pixel_data_length",
    }
)
_IDENTITY_TAGS = (
    _Tag.PATIENT_NAME,
    _Tag.PATIENT_ID,
    _Tag.PATIENT_BIRTH_DATE,
    _Tag.PATIENT_SEX,
    _Tag.ACCESSION_NUMBER,
    _Tag.STUDY_ID,
    _Tag.STUDY_DATE,
    _Tag.STUDY_TIME,
    _Tag.STUDY_DESCRIPTION,
    _Tag.REFERRING_PHYSICIAN_NAME,
)
# Of the identity, the header tells age and sex.
_SERIES_TAGS = tuple(
    tag
    for tag in sorted(_WANTED - _OWN_TAGS)
    if tag not in _IDENTITY_TAGS
    or tag in {_Tag.PATIENT_BIRTH_DATE, _Tag.PATIENT_SEX, _Tag.STUDY_DATE}
)
# As many series as may arrive at the same time; an entry has a few hundred bytes, a hostile one
# as many values of MAX_VALUE_BYTES as there are tags.
_KEPT_SERIES = 32

_LOOKALIKES = Lookalikes(frozenset(int(tag) for tag in _OWN_TAGS))

# Syntaxes that lose by definition; (0028,2110) decides for the others (PS3.3 C.7.6.1.1.5).
_ALWAYS_LOSSY = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless})
# The header of a deflated data set is far below this; a bomb stops here.
_MAX_INFLATED_BYTES = 16 * 1024 * 1024
_DEFLATED_INPUT_BYTES = 256 * 1024
# File meta information as most files have it, and what is read of the data set at a time.
_HEAD_BYTES = BLOCK_BYTES + 2048
# As file meta information is written, whatever the encoding of the data set.
_FORBIDDEN_GROUPS = frozenset(group.to_bytes(2, "little") for group in (0, 2, 4, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScan:
    """One stored file: what its meta information and its elements say."""

    meta: FileMeta
    scan: Scan
    file_bytes: int


def read_headers(path: Path) -> tuple[InstanceHeader, StudyIdentity]:
    """Read one DICOM file without its pixels.

    Raises:
        NotADicomFileError: The file is not in the DICOM File Format.
        DataSetUnreadableError: A UID that identifies the instance is missing or invalid.
        OSError: The file cannot be read.
    """
    found = scan_file(path)
    return header_of(found), identity_of(found.scan)


def scan_file(path: Path) -> FileScan:
    """Walk one DICOM file's elements; see ``read_headers`` for what it raises."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        head = os.pread(descriptor, _HEAD_BYTES, 0)

        def read_at(offset: int, length: int) -> bytes:
            if offset + length <= len(head):
                return head[offset : offset + length]
            return os.pread(descriptor, length, offset)

        meta = read_file_meta(descriptor, head)
        return scan_received(read_at, os.fstat(descriptor).st_size, meta)
    finally:
        os.close(descriptor)


def scan_received(read_at: ReadAt, file_bytes: int, meta: FileMeta) -> FileScan:
    """Walk the elements of a file that may still be in memory.

    Args:
        read_at: Access to the bytes of the file, offset 0 being its preamble.
        file_bytes: Length of the file.
        meta: Its file meta information.

    Raises:
        DataSetUnreadableError: A deflated data set is no such thing.
    """
    return FileScan(meta=meta, scan=_scan(read_at, file_bytes, meta), file_bytes=file_bytes)


def check_first_element(read_at: ReadAt, data_set_offset: int) -> None:
    """Refuse a data set that begins with what a reader would take for file meta information.

    PS3.5 7.1: groups 0000 to 0006 are not in a data set. On the disk such a data set would go on
    where our own group 0002 ends, and lend every reader another transfer syntax.

    Raises:
        DataSetUnreadableError: It does.
    """
    if read_at(data_set_offset, 2) in _FORBIDDEN_GROUPS:
        raise DataSetUnreadableError("the data set begins with a group that no data set has")


def _scan(read_at: ReadAt, size: int, meta: FileMeta) -> Scan:
    syntax = meta.transfer_syntax_uid
    encoding = Encoding(
        implicit_vr=syntax == uid.ImplicitVRLittleEndian,
        little_endian=syntax != uid.ExplicitVRBigEndian,
    )
    start = meta.data_set_offset
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        inflated = _inflate(read_at, start)
        return scan_data_set(
            lambda offset, length: inflated[offset : offset + length],
            len(inflated),
            encoding,
            _WANTED,
            _LOOKALIKES,
        )
    return scan_data_set(
        lambda offset, length: read_at(start + offset, length),
        size - start,
        encoding,
        _WANTED,
        _LOOKALIKES,
    )


def _inflate(read_at: ReadAt, start: int) -> bytes:
    """The first bytes of a deflated data set (PS3.5 A.5)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = bytearray()
    position = start
    while len(inflated) < _MAX_INFLATED_BYTES and not inflater.eof:
        deflated = inflater.unconsumed_tail or read_at(position, _DEFLATED_INPUT_BYTES)
        if not deflated:
            break
        if not inflater.unconsumed_tail:
            position += len(deflated)
        try:
            inflated += inflater.decompress(deflated, _MAX_INFLATED_BYTES - len(inflated))
        except zlib.error as error:
            raise DataSetUnreadableError("the data set is not deflated as announced") from error
    return bytes(inflated)


def _raws_of(scan: Scan) -> Mapping[int, bytes]:
    """The values at the top level, and those that are the only one in the functional groups."""
    if not scan.grouped:
        return scan.values
    single = {tag: next(iter(raws)) for tag, raws in scan.grouped.items() if len(raws) == 1}
    return {**single, **scan.values}


class _Values:
    """Typed access to raw values."""

    def __init__(self, raws: Mapping[int, bytes], *, little_endian: bool) -> None:
        self._raws = raws
        self._order = "<" if little_endian else ">"

    def raw(self, tag: int) -> bytes:
        return self._raws.get(tag, b"")

    def text(self, tag: int) -> str:
        terms = values.codes_of(self.raw(_Tag.SPECIFIC_CHARACTER_SET))
        return values.text_of(self.raw(tag), values.codecs_of(terms))

    def codes(self, tag: int) -> tuple[str, ...]:
        return values.codes_of(self.raw(tag))

    def code(self, tag: int) -> str | None:
        return next(iter(self.codes(tag)), None) or None

    def uid(self, tag: int) -> str | None:
        code = self.code(tag)
        return code if code is not None and is_valid_uid(code) else None

    def number(self, tag: int) -> float | None:
        code = self.code(tag)
        return None if code is None else values.number_of(code)

    def integer(self, tag: int) -> int | None:
        code = self.code(tag)
        return None if code is None else values.integer_of(code)

    def short(self, tag: int, *, signed: bool = False) -> int | None:
        """A US or SS value."""
        raw = self.raw(tag)
        if len(raw) < 2:  # noqa: PLR2004  bytes of a 16-bit value
            return None
        value: int = struct.unpack_from(self._order + ("h" if signed else "H"), raw)[0]
        return value

    def decimals(self, tag: int, count: int) -> tuple[float, ...] | None:
        return values.numbers_of(self.raw(tag), count)


def _required_uid(found: _Values, tag: int, keyword: str) -> str:
    value = found.uid(tag)
    if value is None:
        raise DataSetUnreadableError(f"{keyword} is missing or no UID; the sender must correct it")
    return value


def header_of(found: FileScan) -> InstanceHeader:
    """The header of a scanned file.

    Raises:
        DataSetUnreadableError: A UID that identifies the instance is missing or invalid.
    """
    raws, little_endian = _raws_of(found.scan), found.scan.encoding.little_endian
    of = _Values(raws, little_endian=little_endian)
    position = of.decimals(_Tag.IMAGE_POSITION_PATIENT, 3)
    pixel_offset, pixel_length = _native_pixels(found)
    return InstanceHeader(
        **_series_fields(
            tuple(map(raws.get, _SERIES_TAGS)), found.meta.transfer_syntax_uid, little_endian
        ),
        sop_instance_uid=_required_uid(of, _Tag.SOP_INSTANCE_UID, "SOPInstanceUID"),
        instance_number=of.integer(_Tag.INSTANCE_NUMBER),
        image_position_mm=cast("Vector3 | None", position),
        has_pixel_data=found.scan.pixels is not None,
        pixel_data_offset=pixel_offset,
        pixel_data_length=pixel_length,
    )


@lru_cache(maxsize=_KEPT_SERIES)
def _series_fields(
    raws: tuple[bytes | None, ...],
    transfer_syntax_uid: str,
    little_endian: bool,  # noqa: FBT001  the cache is faster without keywords
) -> Mapping[str, Any]:
    """The fields of a header that are the same for every image of a series.

    Args:
        raws: The values of ``_SERIES_TAGS``.
        transfer_syntax_uid: Of the file.
        little_endian: How the values are written.

    Raises:
        DataSetUnreadableError: A UID that identifies the instance is missing or invalid.
    """
    known = {tag: raw for tag, raw in zip(_SERIES_TAGS, raws, strict=True) if raw is not None}
    header = _series_header(_Values(known, little_endian=little_endian), transfer_syntax_uid)
    return {
        field.name: getattr(header, field.name)
        for field in fields(header)
        if field.name not in _OWN_FIELDS
    }


def _series_header(of: _Values, syntax: str) -> InstanceHeader:
    """A header without what is each image's own."""
    signed = of.short(_Tag.PIXEL_REPRESENTATION) == 1
    return InstanceHeader(
        study_instance_uid=_required_uid(of, _Tag.STUDY_INSTANCE_UID, "StudyInstanceUID"),
        series_instance_uid=_required_uid(of, _Tag.SERIES_INSTANCE_UID, "SeriesInstanceUID"),
        sop_instance_uid="",
        sop_class_uid=_required_uid(of, _Tag.SOP_CLASS_UID, "SOPClassUID"),
        transfer_syntax_uid=syntax,
        modality=of.code(_Tag.MODALITY),
        image_type=of.codes(_Tag.IMAGE_TYPE),
        manufacturer=of.text(_Tag.MANUFACTURER) or None,
        body_part_examined=of.code(_Tag.BODY_PART_EXAMINED),
        view_position=of.code(_Tag.VIEW_POSITION),
        presentation_intent_type=of.code(_Tag.PRESENTATION_INTENT_TYPE),
        convolution_kernel=of.code(_Tag.CONVOLUTION_KERNEL),
        contrast_bolus=bool(of.text(_Tag.CONTRAST_BOLUS_AGENT)),
        patient_age_years=_age(of),
        patient_sex=of.code(_Tag.PATIENT_SEX),
        series_number=of.integer(_Tag.SERIES_NUMBER),
        acquisition_number=of.integer(_Tag.ACQUISITION_NUMBER),
        images_in_acquisition=of.integer(_Tag.IMAGES_IN_ACQUISITION),
        rows=of.short(_Tag.ROWS),
        columns=of.short(_Tag.COLUMNS),
        number_of_frames=of.integer(_Tag.NUMBER_OF_FRAMES),
        samples_per_pixel=of.short(_Tag.SAMPLES_PER_PIXEL),
        photometric_interpretation=of.code(_Tag.PHOTOMETRIC_INTERPRETATION),
        bits_allocated=of.short(_Tag.BITS_ALLOCATED),
        bits_stored=of.short(_Tag.BITS_STORED),
        pixel_representation=of.short(_Tag.PIXEL_REPRESENTATION),
        pixel_padding_value=of.short(_Tag.PIXEL_PADDING_VALUE, signed=signed),
        pixel_padding_range_limit=of.short(_Tag.PIXEL_PADDING_RANGE_LIMIT, signed=signed),
        lossy_image_compression=of.code(_Tag.LOSSY_IMAGE_COMPRESSION) == "01"
        or syntax in _ALWAYS_LOSSY,
        rescale_slope=of.number(_Tag.RESCALE_SLOPE),
        rescale_intercept=of.number(_Tag.RESCALE_INTERCEPT),
        pixel_spacing_mm=_spacing(of),
        slice_thickness_mm=of.number(_Tag.SLICE_THICKNESS),
        spacing_between_slices_mm=of.number(_Tag.SPACING_BETWEEN_SLICES),
        image_orientation=cast("Vector6 | None", of.decimals(_Tag.IMAGE_ORIENTATION_PATIENT, 6)),
        gantry_tilt_deg=of.number(_Tag.GANTRY_DETECTOR_TILT),
        frame_of_reference_uid=of.uid(_Tag.FRAME_OF_REFERENCE_UID),
    )


def outgoing_uids(found: FileScan) -> tuple[str, str]:
    """SOP class and instance of a file that is to be sent: of its data set, else of its meta.

    Raises:
        DataSetUnreadableError: One of them, or the transfer syntax, is missing or no UID.
    """
    of = _Values(_raws_of(found.scan), little_endian=found.scan.encoding.little_endian)
    meta = found.meta
    sop_class = of.uid(_Tag.SOP_CLASS_UID) or meta.sop_class_uid
    sop_instance = of.uid(_Tag.SOP_INSTANCE_UID) or meta.sop_instance_uid
    if not all(map(is_valid_uid, (sop_class, sop_instance, meta.transfer_syntax_uid))):
        raise DataSetUnreadableError("the file names no SOP class, instance or transfer syntax")
    return sop_class, sop_instance


def _spacing(of: _Values) -> tuple[float, float] | None:
    """Pixel Spacing, else the detector's (projection radiography has only that one)."""
    pair = of.decimals(_Tag.PIXEL_SPACING, 2) or of.decimals(_Tag.IMAGER_PIXEL_SPACING, 2)
    return cast("tuple[float, float] | None", pair)


def _age(of: _Values) -> float | None:
    """The age as written, else the time from birth to study."""
    written = values.years_of(of.code(_Tag.PATIENT_AGE) or "")
    if written is not None:
        return written
    return values.years_between(
        of.code(_Tag.PATIENT_BIRTH_DATE) or "", of.code(_Tag.STUDY_DATE) or ""
    )


def _native_pixels(found: FileScan) -> tuple[int | None, int | None]:
    """Offset in the file and length of whole, native, undeflated pixel data."""
    pixels = found.scan.pixels
    deflated = found.meta.transfer_syntax_uid == uid.DeflatedExplicitVRLittleEndian
    if pixels is None or pixels.tag != PIXEL_DATA or pixels.length is None or deflated:
        return None, None
    offset = found.meta.data_set_offset + pixels.offset
    if offset + pixels.length > found.file_bytes:
        return None, None
    return offset, pixels.length


def identity_of(scan: Scan) -> StudyIdentity:
    """Who and what a scanned data set is about."""
    raws = _raws_of(scan)
    return _identity_of(
        raws.get(_Tag.SPECIFIC_CHARACTER_SET, b""), tuple(map(raws.get, _IDENTITY_TAGS))
    )


@lru_cache(maxsize=_KEPT_SERIES)
def _identity_of(character_set: bytes, raws: tuple[bytes | None, ...]) -> StudyIdentity:
    """The identity that the values of ``_IDENTITY_TAGS`` tell."""
    codecs = values.codecs_of(values.codes_of(character_set))
    text = {
        tag: values.text_of(raw or b"", codecs)
        for tag, raw in zip(_IDENTITY_TAGS, raws, strict=True)
    }
    return StudyIdentity(
        patient_name=text[_Tag.PATIENT_NAME].rstrip("="),
        patient_id=text[_Tag.PATIENT_ID],
        patient_birth_date=text[_Tag.PATIENT_BIRTH_DATE],
        patient_sex=text[_Tag.PATIENT_SEX],
        accession_number=text[_Tag.ACCESSION_NUMBER],
        study_id=text[_Tag.STUDY_ID],
        study_date=text[_Tag.STUDY_DATE],
        study_time=text[_Tag.STUDY_TIME],
        study_description=text[_Tag.STUDY_DESCRIPTION],
        referring_physician_name=text[_Tag.REFERRING_PHYSICIAN_NAME],
    )
