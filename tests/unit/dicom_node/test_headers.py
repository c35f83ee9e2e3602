from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node import headers
from dicom_node.errors import DataSetUnreadableError, DicomNodeError, NotADicomFileError
from dicom_node.file_meta import encode_file_meta, read_file_meta
from dicom_node.headers import read_headers
from dicom_node.instance import InstanceHeader
from dicom_node.quiet import silence_dicom_libraries
from dicom_node.scanner import MAX_ELEMENTS, Encoding, Scan, scan_data_set

_EXPLICIT = Encoding(implicit_vr=False, little_endian=True)
_WANTED = frozenset({0x00080018, 0x00100010})


def _named(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path)


def _scan(data: bytes) -> Scan:
    return scan_data_set(lambda at, length: data[at : at + length], len(data), _EXPLICIT, _WANTED)


def _element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def _opened(group: int, number: int) -> bytes:
    return struct.pack("<HH2sHI", group, number, b"SQ", 0, 0xFFFFFFFF)


_UID = _element(0x0008, 0x0018, b"UI", b"1.2.3\0")


def test_ct_header_has_what_selection_and_the_gate_need(ct_path: Path) -> None:
    header, identity = read_headers(ct_path)
    ds = dcmread(ct_path)
    assert header.study_instance_uid == ds.StudyInstanceUID
    assert header.series_instance_uid == ds.SeriesInstanceUID
    assert header.sop_instance_uid == ds.SOPInstanceUID
    assert header.transfer_syntax_uid == ds.file_meta.TransferSyntaxUID
    assert (header.modality, header.manufacturer) == ("CT", "GE MEDICAL SYSTEMS")
    assert header.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert (header.rows, header.columns, header.bits_allocated) == (128, 128, 16)
    assert header.image_position_mm == (-158.135803, -179.035797, -75.699997)
    assert header.image_orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert header.pixel_spacing_mm == (0.661468, 0.661468)
    assert (header.rescale_slope, header.rescale_intercept) == (1.0, -1024.0)
    assert header.pixel_padding_value == -2000
    assert header.patient_age_years == 0.0
    assert header.contrast_bolus
    assert identity.patient_name == str(ds.PatientName)
    assert identity.patient_id == ds.PatientID


def test_native_pixels_are_where_the_header_says(ct_path: Path) -> None:
    header, _ = read_headers(ct_path)
    assert header.pixel_data_offset is not None
    assert header.pixel_data_length is not None
    end = header.pixel_data_offset + header.pixel_data_length
    assert ct_path.read_bytes()[header.pixel_data_offset : end] == dcmread(ct_path).PixelData


def test_encapsulated_pixels_have_no_offset() -> None:
    header, _ = read_headers(_named("MR_small_RLE.dcm"))
    assert header.has_pixel_data
    assert (header.pixel_data_offset, header.pixel_data_length) == (None, None)


def test_cut_off_pixels_have_no_offset(tmp_path: Path, ct_path: Path) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes(ct_path.read_bytes()[:-500])
    header, _ = read_headers(path)
    assert header.has_pixel_data
    assert header.pixel_data_offset is None


def test_big_endian_and_implicit_files_read_like_their_explicit_sister() -> None:
    explicit, _ = read_headers(_named("MR_small.dcm"))
    for name in ("MR_small_bigendian.dcm", "MR_small_implicit.dcm"):
        other, _ = read_headers(_named(name))
        assert (other.rows, other.image_position_mm) == (explicit.rows, explicit.image_position_mm)
        assert other.bits_stored == explicit.bits_stored


def _macro(keyword: str, attribute: str, value: object) -> Dataset:
    inner, group = Dataset(), Dataset()
    setattr(inner, attribute, value)
    setattr(group, keyword, [inner])
    return group


@pytest.mark.parametrize("undefined_length", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_enhanced_object_has_a_value_only_where_it_is_single_valued(
    make_file: Callable[..., Path], undefined_length: bool, implicit: bool
) -> None:
    def enhance(ds: Dataset) -> None:
        del ds.SliceThickness, ds.ImagePositionPatient, ds.ImageOrientationPatient
        ds.NumberOfFrames = 2
        shared = _macro("PixelMeasuresSequence", "SliceThickness", "2.5")
        shared.update(
            _macro("PlaneOrientationSequence", "ImageOrientationPatient", [1, 0, 0, 0, 1, 0])
        )
        ds.SharedFunctionalGroupsSequence = [shared]
        ds.PerFrameFunctionalGroupsSequence = [
            _macro("PlanePositionSequence", "ImagePositionPatient", [0, 0, z]) for z in (1, 2)
        ]
        ds["SharedFunctionalGroupsSequence"].is_undefined_length = undefined_length
        ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined_length

    path = make_file(enhance)
    if implicit:
        ds = dcmread(path)
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.save_as(path, implicit_vr=True, little_endian=True)
    header, _ = read_headers(path)
    assert header.number_of_frames == 2
    assert header.slice_thickness_mm == 2.5
    assert header.image_orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert header.image_position_mm is None
    assert header.pixel_data_offset is not None


def test_odd_values_become_none_and_fail_nothing(make_file: Callable[..., Path]) -> None:
    silence_dicom_libraries()

    def spoil(ds: Dataset) -> None:
        for tag, vr, value in (
            (0x00180050, "LO", "thick"),
            (0x00200013, "LO", "1st"),
            (0x00200032, "LO", "1\\2"),
            (0x00101010, "LO", "old"),
            (0x00280030, "LO", "nan\\1"),
            (0x00280010, "LO", ""),
        ):
            ds[tag] = DataElement(tag, vr, value)
        ds.PatientBirthDate = "19991399"
        ds[0x00080005] = DataElement(0x00080005, "LO", "ISO_IR 9999")
        ds[0x00100010] = DataElement(0x00100010, "UN", b"\xff\xfe^\x1b$")

    header, identity = read_headers(make_file(spoil))
    assert header.slice_thickness_mm is None
    assert header.instance_number is None
    assert header.image_position_mm is None
    assert header.patient_age_years is None
    assert header.pixel_spacing_mm is None
    assert header.rows is None
    assert identity.patient_name


def test_age_comes_from_the_dates_where_no_age_is_written(
    make_file: Callable[..., Path],
) -> None:
    def change(ds: Dataset) -> None:
        del ds.PatientAge
        ds.PatientBirthDate, ds.StudyDate = "19900101", "20200101"

    header, _ = read_headers(make_file(change))
    assert header.patient_age_years == pytest.approx(30, abs=0.01)


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
@pytest.mark.parametrize("value", [None, "", "1.2.../../etc"])
def test_instance_without_its_uids_is_unreadable(
    make_file: Callable[..., Path], keyword: str, value: str | None
) -> None:
    silence_dicom_libraries()

    def change(ds: Dataset) -> None:
        if value is None:
            del ds[keyword]
        else:
            ds[keyword] = DataElement(ds.data_element(keyword).tag, "LO", value)  # type: ignore[union-attr]  # there

    with pytest.raises(DataSetUnreadableError, match=keyword):
        read_headers(make_file(change))


def test_identity_and_header_show_no_patient_in_their_repr(
    make_file: Callable[..., Path],
) -> None:
    def change(ds: Dataset) -> None:
        ds.PatientName, ds.PatientID = "CANARY^NAME", "CANARY-ID"
        ds.AccessionNumber = "CANARY-ACC"

    header, identity = read_headers(make_file(change))
    assert identity.patient_name == "CANARY^NAME"
    assert "CANARY" not in repr(identity) + repr(header)


def test_deflated_data_set_is_read_and_a_bomb_stops_at_the_bound(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    path = make_file()
    raw = path.read_bytes()
    with path.open("rb") as stream:
        offset = read_file_meta(stream.fileno()).data_set_offset
    meta = encode_file_meta(
        sop_class_uid="1.2",
        sop_instance_uid="1.3",
        transfer_syntax_uid=DeflatedExplicitVRLittleEndian,
        source_ae_title="",
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(raw[offset:])
    for _ in range(64):
        bomb += packer.compress(bytes(1 << 20))
    deflated = tmp_path / "deflated.dcm"
    deflated.write_bytes(meta + bomb + packer.flush())
    header, _ = read_headers(deflated)
    assert header.rows == 128
    assert header.has_pixel_data
    assert header.pixel_data_offset is None
    deflated.write_bytes(meta + b"\xff\xff not deflated")
    with pytest.raises(DataSetUnreadableError):
        read_headers(deflated)


def test_negotiated_syntax_is_not_believed_against_the_bytes(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    """Some devices negotiate implicit VR and send explicit."""
    path = make_file()
    with path.open("rb") as stream:
        meta = read_file_meta(stream.fileno())
    wrong = encode_file_meta(
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid="1.2.840.10008.1.2",
        source_ae_title="SCANNER",
    )
    other = tmp_path / "wrong.dcm"
    other.write_bytes(wrong + path.read_bytes()[meta.data_set_offset :])
    header, _ = read_headers(other)
    assert header.rows == 128
    assert header.has_pixel_data


def test_file_meta_reads_back_with_pydicom(tmp_path: Path) -> None:
    path = tmp_path / "meta.dcm"
    path.write_bytes(
        encode_file_meta(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid="1.2.3",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            source_ae_title="CT ONE",
        )
    )
    meta = dcmread(path).file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert meta.SourceApplicationEntityTitle == "CT ONE"
    assert meta.ImplementationVersionName == "EDGE_TRIAGE"
    assert meta.FileMetaInformationGroupLength == path.stat().st_size - 132 - 12
    with path.open("rb") as stream:
        assert read_file_meta(stream.fileno()).source_ae_title == "CT ONE"


def test_file_that_is_no_dicom_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"text", bytes(132), bytes(128) + b"DICM\x02\0\1\0OB\0\0\xff\xff\xff\xff"):
        path.write_bytes(content)
        with pytest.raises((NotADicomFileError, DataSetUnreadableError)):
            read_headers(path)


def test_deep_nesting_stops_the_walk_and_keeps_what_was_found() -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    data = _UID + (_opened(0x0040, 0x0275) + item) * 100_000
    scan = _scan(data)
    assert scan.values[0x00080018] == b"1.2.3\0"
    assert not scan.complete


def test_endless_elements_stop_at_the_bound() -> None:
    data = _UID + _element(0x0009, 0x0010, b"LO", b"") * (MAX_ELEMENTS + 10)
    assert not _scan(data).complete


@pytest.mark.parametrize(
    "tail",
    [
        struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 0xFFFFFFF0),
        struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 0xFFFF),
        struct.pack("<HHI", 0xFFFE, 0xE000, 8),
        struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 0xFFFFFFFF),
        b"\x10\0\x10",
        _opened(0x0040, 0x0275),
    ],
)
def test_declared_lengths_are_not_believed(tail: bytes) -> None:
    scan = _scan(_UID + tail)
    assert scan.values == {0x00080018: b"1.2.3\0"}
    assert not scan.complete


def test_values_inside_sequences_are_not_taken_for_the_instance() -> None:
    inner = _element(0x0008, 0x0018, b"UI", b"9.9.9\0")
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    undefined = _opened(0x0008, 0x1140) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    scan = _scan(undefined + _UID)
    assert scan.values == {0x00080018: b"1.2.3\0"}
    assert scan.complete


def _agrees(header: InstanceHeader, path: Path) -> None:
    ds = dcmread(path)
    assert header.sop_instance_uid == ds.get("SOPInstanceUID"), path.name
    assert header.rows == ds.get("Rows"), path.name
    assert (header.modality or "") == (ds.get("Modality") or ""), path.name
    if header.pixel_data_offset is not None:
        assert header.pixel_data_length == len(ds.PixelData), path.name


def test_every_real_file_is_read_as_pydicom_reads_it_or_declined_by_a_declared_error(
    real_files: list[Path],
) -> None:
    silence_dicom_libraries()
    read = 0
    for path in real_files:
        try:
            header, _ = read_headers(path)
        except DicomNodeError:
            continue
        read += 1
        if "too_short" not in path.name:  # which pydicom itself cannot read
            _agrees(header, path)
    assert read >= 50


def test_images_of_one_series_have_each_its_own_header(make_file: Callable[..., Path]) -> None:
    def number(value: int) -> Callable[[Dataset], None]:
        def change(ds: Dataset) -> None:
            ds.InstanceNumber, ds.ImagePositionPatient = value, [0, 0, value]

        return change

    found = [read_headers(make_file(number(value))) for value in (1, 2)]
    (first, patient), (second, same_patient) = found
    assert first.sop_instance_uid != second.sop_instance_uid
    assert (first.instance_number, second.instance_number) == (1, 2)
    assert (first.image_position_mm, second.image_position_mm) == ((0, 0, 1), (0, 0, 2))
    assert first.series_instance_uid == second.series_instance_uid
    assert patient == same_patient


def test_what_was_read_before_shows_in_no_other_header(real_files: list[Path]) -> None:
    silence_dicom_libraries()

    def read(path: Path) -> object:
        try:
            return read_headers(path)
        except (DicomNodeError, ValueError) as error:
            return type(error)

    paths = real_files[:200]
    in_a_row = [read(path) for path in paths]
    for path, found in zip(paths, in_a_row, strict=True):
        headers._series_fields.cache_clear()
        headers._identity_of.cache_clear()
        assert read(path) == found, path.name


@pytest.mark.parametrize(
    ("representation", "vr", "ends"), [(1, "SS", (-2000, -1990)), (0, "US", (63536, 63546))]
)
@pytest.mark.parametrize("implicit", [False, True])
def test_a_range_of_padding_is_read_as_the_pixels_are_signed(
    make_file: Callable[..., Path],
    representation: int,
    vr: str,
    ends: tuple[int, int],
    implicit: bool,
) -> None:
    def pad(ds: Dataset) -> None:
        ds.PixelRepresentation = representation
        ds[0x00280120] = DataElement(0x00280120, vr, ends[0])
        ds[0x00280121] = DataElement(0x00280121, vr, ends[1])
        if implicit:
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    header, _ = read_headers(make_file(pad))
    assert (header.pixel_padding_value, header.pixel_padding_range_limit) == ends


def test_padding_of_one_value_has_no_range(ct_path: Path) -> None:
    assert read_headers(ct_path)[0].pixel_padding_range_limit is None
