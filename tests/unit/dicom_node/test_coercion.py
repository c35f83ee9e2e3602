from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, FileDataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.admission import Coercion
from dicom_node.coercion import (
    EMPTIABLE,
    SETTABLE,
    CoercedAttribute,
    CoercionPlan,
    Splice,
    apply_splices,
    check_coercions,
    plan_received,
    plan_splices,
)
from dicom_node.errors import CoercionNotAllowedError, DataSetUnreadableError
from dicom_node.file_meta import read_file_meta
from dicom_node.scanner import Encoding, ReadAt

_WANTED = {
    "InstitutionName": "Hill Clinic",
    "StationName": "CT 2",
    "IssuerOfPatientID": "HILL",
    "RequestingService": "Emergency",
    "PatientName": "",
    "AccessionNumber": "",
    "OperatorsName": "",
}
_EXPLICIT = Encoding(implicit_vr=False, little_endian=True)


def _attributes(values: Mapping[str, str] = _WANTED) -> tuple[CoercedAttribute, ...]:
    return check_coercions([Coercion(keyword=key, value=values[key]) for key in values])


def _plan(path: Path, attributes: Sequence[CoercedAttribute]) -> CoercionPlan | None:
    data = path.read_bytes()
    with path.open("rb") as file:
        meta = read_file_meta(file.fileno())
    return plan_received(_reader(data), len(data), meta, attributes)


def _coerced(path: Path, attributes: Sequence[CoercedAttribute]) -> bytes | None:
    """The whole file as it is stored; None: as it came."""
    plan = _plan(path, attributes)
    if plan is None:
        return None
    out = bytearray(path.read_bytes()[: plan.data_set_offset])
    plan.write_to(out.extend)
    return bytes(out)


def _reader(data: bytes) -> ReadAt:
    return lambda offset, length: data[offset : offset + length]


def _named(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path)


# ---------------------------------------------------------------- what may be coerced


@pytest.mark.parametrize("keyword", SETTABLE + EMPTIABLE)
def test_what_may_be_coerced_is_short_text_of_the_dictionary(keyword: str) -> None:
    """So that every element has a 16-bit length, and a value of one VR is the same in any file."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    assert dictionary_VR(tag) in {"LO", "SH", "PN", "CS", "ST", "LT", "DA", "TM", "AS"}


def test_no_attribute_is_in_both_tables() -> None:
    assert len({*SETTABLE, *EMPTIABLE}) == len(SETTABLE) + len(EMPTIABLE)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "1.2.3"),
        ("SOPInstanceUID", ""),
        ("SpecificCharacterSet", "ISO_IR 192"),
        ("Rows", "1"),
        ("PixelSpacing", ""),
        ("PixelData", ""),
        ("OtherPatientIDsSequence", ""),
        ("Modality", "CT"),
        ("BodyPartExamined", "HEAD"),
        ("Manufacturer", "Somebody"),
        ("NoSuchKeyword", ""),
    ],
)
def test_what_identifies_or_decides_is_refused_by_name(keyword: str, value: str) -> None:
    with pytest.raises(CoercionNotAllowedError, match=f"{keyword} cannot be coerced; can be set"):
        check_coercions([Coercion(keyword=keyword, value=value)])


@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "PatientAge", "AccessionNumber"])
def test_one_value_for_all_patients_is_refused(keyword: str) -> None:
    with pytest.raises(CoercionNotAllowedError, match="can only be emptied"):
        check_coercions([Coercion(keyword=keyword, value="1")])
    (attribute,) = check_coercions([Coercion(keyword=keyword, value="")])
    assert attribute.value == b""


@pytest.mark.parametrize(
    "value", ["Universitätsklinik", "a\\b", "a\nb", "a~b", " a", "a ", "\x1b$B"]
)
def test_value_that_not_every_character_set_has_is_refused(value: str) -> None:
    with pytest.raises(CoercionNotAllowedError, match="must be ASCII"):
        check_coercions([Coercion(keyword="InstitutionName", value=value)])


@pytest.mark.parametrize(
    ("keyword", "value"), [("StationName", "x" * 17), ("ReferringPhysicianName", "a=b=c=d")]
)
def test_value_that_its_vr_does_not_allow_is_refused(keyword: str, value: str) -> None:
    with pytest.raises(CoercionNotAllowedError, match="is no valid") as caught:
        check_coercions([Coercion(keyword=keyword, value=value)])
    assert value not in str(caught.value)


def test_attribute_that_is_named_twice_is_refused() -> None:
    twice = [Coercion(keyword="StationName", value=value) for value in "ab"]
    with pytest.raises(CoercionNotAllowedError, match="twice"):
        check_coercions(twice)


# ---------------------------------------------------------------- real files


def _real_files() -> list[Path]:
    import pydicom.data  # noqa: PLC0415  only the folder is wanted

    assert pydicom.data.__file__ is not None
    folders = [Path(pydicom.data.__file__).parent / "test_files"]
    if extra := os.environ.get("EDGE_TRIAGE_TEST_DATA"):
        folders.append(Path(extra))
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def _readings() -> Iterator[tuple[Path, FileDataset]]:
    """Every file that pydicom takes, and what it reads before the pixels."""
    for path in _real_files():
        try:
            ds = dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError, TypeError):
            continue
        if ds.file_meta.get("TransferSyntaxUID"):
            yield path, ds


def _raw(ds: Dataset) -> dict[int, object]:
    """Elements as they are encoded, as far as pydicom keeps that; group lengths left out."""
    return {
        int(tag): (each.VR, each.value) if isinstance(each, RawDataElement) else each
        for tag, each in ds.items()
        if int(tag) & 0xFFFF
    }


def test_every_real_file_reads_the_same_but_for_what_was_coerced() -> None:
    attributes = _attributes()
    by_tag = {each.tag: each for each in attributes}
    syntaxes: set[UID] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd files are wanted here
        for path, before in _readings():
            found = _coerced(path, attributes)
            assert found is not None, path
            after = dcmread(BytesIO(found), stop_before_pixels=True)
            old, new = _raw(before), _raw(after)
            assert {tag: new[tag] for tag in new if tag not in by_tag} == {
                tag: old[tag] for tag in old if tag not in by_tag
            }, path
            for tag, attribute in by_tag.items():
                wanted = attribute.value.decode() or (None if tag not in old else "")
                assert _text(after, tag) == wanted, path
            assert list(new) == sorted(new) or list(old) != sorted(old), path
            syntaxes.add(before.file_meta.TransferSyntaxUID)
    assert {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.5",
    } <= syntaxes


def _text(ds: Dataset, tag: int) -> str | None:
    if tag not in ds:
        return None
    value = ds[tag].value
    return "" if value is None else str(value)


def test_every_other_byte_of_a_real_file_stays() -> None:
    for path, _ in _quietly_read():
        plan = _plan(path, _attributes())
        assert plan is not None
        if plan.is_deflated:
            continue
        data = path.read_bytes()[plan.data_set_offset :]
        out = bytearray()
        plan.write_to(out.extend)
        grown = sum(len(each.inserted) - each.removed for each in plan.splices)
        assert len(out) == len(data) + grown
        last = plan.splices[-1]
        assert out.endswith(data[last.offset + last.removed :])
        assert out.startswith(data[: plan.splices[0].offset])


def _quietly_read() -> Iterator[tuple[Path, FileDataset]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from _readings()


def test_instance_that_comes_again_is_coerced_to_the_same_bytes() -> None:
    for name in ("CT_small.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm"):
        first, again = (_coerced(_named(name), _attributes()) for _ in range(2))
        assert first is not None
        assert first == again


def test_instance_that_was_coerced_needs_nothing_more(tmp_path: Path) -> None:
    for name in ("CT_small.dcm", "image_dfl.dcm", "MR_small_implicit.dcm"):
        path = tmp_path / name
        path.write_bytes(_coerced(_named(name), _attributes()) or b"")
        assert _plan(path, _attributes()) is None


def test_value_that_is_there_but_for_padding_is_no_change() -> None:
    ds = dcmread(_named("CT_small.dcm"))
    same = {"InstitutionName": str(ds.InstitutionName), "StationName": str(ds.StationName)}
    assert all(same.values())
    assert _plan(_named("CT_small.dcm"), _attributes(same)) is None


def test_emptying_what_is_absent_changes_nothing() -> None:
    assert "PatientComments" not in dcmread(_named("CT_small.dcm"))
    assert _plan(_named("CT_small.dcm"), _attributes({"PatientComments": ""})) is None


# ---------------------------------------------------------------- deflated


def test_deflated_data_set_stays_deflated_and_even() -> None:
    found = _coerced(_named("image_dfl.dcm"), _attributes())
    assert found is not None
    assert len(found) % 2 == 0
    ds = dcmread(BytesIO(found))
    assert ds.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    assert ds.InstitutionName == "Hill Clinic"
    assert ds.PixelData == dcmread(_named("image_dfl.dcm")).PixelData


def test_deflated_data_set_that_breaks_off_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes(_named("image_dfl.dcm").read_bytes()[:-1000])
    with pytest.raises(DataSetUnreadableError, match="breaks off"):
        _plan(path, _attributes())


def test_data_set_that_is_not_deflated_as_announced_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "plain.dcm"
    deflated = _plan(_named("image_dfl.dcm"), _attributes())
    assert deflated is not None
    header = _named("image_dfl.dcm").read_bytes()[: deflated.data_set_offset]
    path.write_bytes(header + _element(0x00080060, b"CS", b"CT") * 100)
    with pytest.raises(DataSetUnreadableError, match="not deflated"):
        _plan(path, _attributes())


def test_bomb_is_inflated_piece_by_piece(tmp_path: Path) -> None:
    """64 MiB of zeros in 64 KiB: the one who writes sees small pieces and can stop."""
    ds = dcmread(_named("CT_small.dcm"))
    buffer = BytesIO()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dcmwrite(buffer, ds, enforce_file_format=True)
    path = tmp_path / "bomb.dcm"
    path.write_bytes(buffer.getvalue())
    first = _plan(path, _attributes())
    assert first is not None
    header = path.read_bytes()[: first.data_set_offset]
    plain = zlib.decompress(path.read_bytes()[first.data_set_offset :], -zlib.MAX_WBITS)
    trailing = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 64 << 20)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(header + packer.compress(plain + trailing + bytes(64 << 20)) + packer.flush())
    assert path.stat().st_size < 1 << 20
    plan = _plan(path, _attributes())
    assert plan is not None
    sizes: list[int] = []
    plan.write_to(lambda piece: sizes.append(len(piece)))
    assert sum(sizes) > 64 << 20
    assert max(sizes) <= 1 << 20


# ---------------------------------------------------------------- the pure parts


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _apply(data: bytes, attributes: Sequence[CoercedAttribute]) -> bytes:
    splices = plan_splices(_reader(data), len(data), _EXPLICIT, attributes)
    return b"".join(apply_splices([data], splices))


def test_absent_attributes_are_inserted_in_the_order_of_tags() -> None:
    data = _element(0x00080060, b"CS", b"CT") + _element(0x00100020, b"LO", b"id")
    wanted = {"StationName": "ab", "InstitutionName": "cd", "IssuerOfPatientID": "ef"}
    assert _apply(data, _attributes(wanted)) == (
        _element(0x00080060, b"CS", b"CT")
        + _element(0x00080080, b"LO", b"cd")
        + _element(0x00081010, b"SH", b"ab")
        + _element(0x00100020, b"LO", b"id")
        + _element(0x00100021, b"LO", b"ef")
    )


def test_value_of_odd_length_is_padded_with_a_space() -> None:
    assert _apply(b"", _attributes({"StationName": "abc"})) == _element(0x00081010, b"SH", b"abc ")


def test_group_length_and_length_to_end_count_what_changed() -> None:
    tail = _element(0x00080060, b"CS", b"CT") + _element(0x00081010, b"SH", b"long name ")
    other = _element(0x00100000, b"UL", struct.pack("<I", 10)) + _element(0x00100020, b"LO", b"id")
    to_end = _element(0x00080001, b"UL", struct.pack("<I", len(tail + other)))
    head = _element(0x00080000, b"UL", struct.pack("<I", len(to_end + tail)))
    out = _apply(head + to_end + tail + other, _attributes({"StationName": "x"}))
    new_tail = _element(0x00080060, b"CS", b"CT") + _element(0x00081010, b"SH", b"x ")
    assert out == (
        _element(0x00080000, b"UL", struct.pack("<I", len(to_end + new_tail)))
        + _element(0x00080001, b"UL", struct.pack("<I", len(new_tail + other)))
        + new_tail
        + other
    )


def test_attribute_within_a_sequence_stays() -> None:
    item = _element(0x00080080, b"LO", b"theirs")
    nested = (
        struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, len(item))
        + item
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )
    assert _apply(nested, _attributes({"InstitutionName": "ours"})) == (
        _element(0x00080080, b"LO", b"ours") + nested
    )


def test_explicit_data_in_a_context_for_implicit_is_written_as_found() -> None:
    data = _element(0x00080060, b"CS", b"CT")
    negotiated = Encoding(implicit_vr=True, little_endian=True)
    (splice,) = plan_splices(
        _reader(data), len(data), negotiated, _attributes({"StationName": "ab"})
    )
    assert splice.inserted == _element(0x00081010, b"SH", b"ab")


def test_attribute_that_stands_there_twice_is_refused() -> None:
    data = _element(0x00081010, b"SH", b"ab") * 2
    with pytest.raises(DataSetUnreadableError, match="twice"):
        _apply(data, _attributes({"StationName": "cd"}))


def test_data_set_that_breaks_before_the_attribute_is_refused() -> None:
    data = _element(0x00080060, b"CS", b"CT") + _element(0x00080070, b"LO", b"maker")[:-3]
    with pytest.raises(DataSetUnreadableError, match="breaks off"):
        _apply(data, _attributes({"StationName": "cd"}))


def test_data_set_that_breaks_after_the_attribute_is_coerced() -> None:
    data = _element(0x00081010, b"SH", b"ab") + _element(0x00180015, b"CS", b"HEAD")[:-2]
    assert _apply(data, _attributes({"StationName": "cd"})) == data.replace(b"ab", b"cd")


@pytest.mark.parametrize("length", [1_000, 0xFFFE])
def test_attribute_that_is_longer_than_the_data_set_is_refused(length: int) -> None:
    data = struct.pack("<HH2sH", 0x0008, 0x1010, b"SH", length) + b"ab"
    with pytest.raises(DataSetUnreadableError, match="no whole text"):
        _apply(data, _attributes({"StationName": "cd"}))


@settings(derandomize=True, deadline=None)
@given(
    data=st.binary(max_size=60),
    cuts=st.lists(st.integers(0, 60)),
    edges=st.lists(st.integers(0, 60), max_size=8),
    inserted=st.lists(st.binary(max_size=5), min_size=4, max_size=4),
)
def test_pieces_of_any_size_give_the_same_bytes(
    data: bytes, cuts: list[int], edges: list[int], inserted: list[bytes]
) -> None:
    bounds = sorted(min(edge, len(data)) for edge in edges)
    pairs = list(zip(bounds[::2], bounds[1::2], strict=False))
    splices = [
        Splice(offset=begin, removed=end - begin, inserted=new)
        for (begin, end), new in zip(pairs, inserted, strict=False)
    ]
    expected = data
    for splice in reversed(splices):
        end = splice.offset + splice.removed
        expected = expected[: splice.offset] + splice.inserted + expected[end:]
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    assert b"".join(apply_splices(pieces, splices)) == expected


_HEADER_BYTES = 4096


@settings(derandomize=True, deadline=None)
@given(
    name=st.sampled_from(["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"]),
    flips=st.lists(st.tuples(st.integers(0, _HEADER_BYTES - 1), st.integers(0, 255)), max_size=6),
    size=st.integers(0, _HEADER_BYTES),
)
def test_broken_data_set_is_refused_or_coerced_for_good(
    name: str, flips: list[tuple[int, int]], size: int
) -> None:
    """Whatever the bytes: unreadable, or a data set that has the values wherever it is read."""
    with _named(name).open("rb") as file:
        meta = read_file_meta(file.fileno())
        file.seek(meta.data_set_offset)
        data = bytearray(file.read(_HEADER_BYTES))
    for position, value in flips:
        data[position % len(data)] = value
    broken = bytes(data[:size])
    encoding = Encoding(
        implicit_vr=meta.transfer_syntax_uid == ImplicitVRLittleEndian,
        little_endian=meta.transfer_syntax_uid != ExplicitVRBigEndian,
    )
    try:
        splices = plan_splices(_reader(broken), len(broken), encoding, _attributes())
    except DataSetUnreadableError:
        return
    found = b"".join(apply_splices([broken], splices))
    assert plan_splices(_reader(found), len(found), encoding, _attributes()) == ()
