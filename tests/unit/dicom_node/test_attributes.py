from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicom_node.attributes import MAX_ELEMENTS, Attributes, Shape, read_attributes
from dicom_node.errors import DataSetUnreadableError

UID_TAG, ITEMS_TAG, CLASS_TAG = 0x00081195, 0x00081199, 0x00081150
SHAPE: Shape = {UID_TAG: None, ITEMS_TAG: {CLASS_TAG: None}}
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def _item(sop_class: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = "1.2.3.4"
    return item


def _nested() -> Dataset:
    """What is not wanted, on both sides of what is: sequences in sequences, text, bytes."""
    inner = Dataset()
    inner.TransactionUID = "9.9"
    inner.ReferencedSOPSequence = [_item("9.8"), _item("9.7")]
    ds = Dataset()
    ds.AccessionNumber = "A1"
    ds.RequestAttributesSequence = [inner]
    ds.ContentSequence = [inner, inner]
    ds.TransactionUID = "1.2"
    ds.ReferencedSOPSequence = [_item("1.3"), _item("1.4")]
    ds.ICCProfile = b"\0" * 70_000
    return ds


def _encoded(ds: Dataset, syntax: str, *, undefined_length: bool) -> bytes:
    for element in ds.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined_length
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined_length
    data = encode(ds, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    assert data is not None
    return data


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined_length", [False, True])
def test_only_what_is_wanted_is_read_in_every_encoding(
    syntax: str, *, undefined_length: bool
) -> None:
    found = read_attributes(
        _encoded(_nested(), syntax, undefined_length=undefined_length), syntax, SHAPE
    )
    assert set(found) == {UID_TAG, ITEMS_TAG}
    assert found[UID_TAG] == b"1.2\0"
    assert found[ITEMS_TAG] == [{CLASS_TAG: b"1.3\0"}, {CLASS_TAG: b"1.4\0"}]


def test_an_absent_sequence_is_told_from_an_empty_one() -> None:
    ds = Dataset()
    assert read_attributes(b"", ExplicitVRLittleEndian, SHAPE) == {}
    ds.ReferencedSOPSequence = Sequence()
    data = _encoded(ds, ExplicitVRLittleEndian, undefined_length=False)
    assert read_attributes(data, ExplicitVRLittleEndian, SHAPE) == {ITEMS_TAG: []}


def test_every_truncation_is_an_error_or_reads_less() -> None:
    whole = _encoded(_nested(), ExplicitVRLittleEndian, undefined_length=True)[:600]
    for length in range(len(whole)):
        try:
            found = read_attributes(whole[:length], ExplicitVRLittleEndian, SHAPE)
        except DataSetUnreadableError:
            continue
        assert set(found) <= {UID_TAG, ITEMS_TAG}


def test_millions_of_empty_items_end_at_the_bound() -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    data = struct.pack("<HHI", 0x0008, 0x1199, 0xFFFFFFFF) + item * (MAX_ELEMENTS + 1)
    with pytest.raises(DataSetUnreadableError, match="more elements"):
        read_attributes(data, ImplicitVRLittleEndian, SHAPE)


def test_a_tower_of_nested_sequences_does_not_recurse() -> None:
    level = struct.pack("<HHI", 0x0040, 0xA730, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(DataSetUnreadableError):
        read_attributes(level * 50_000, ImplicitVRLittleEndian, SHAPE)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(data=st.binary(max_size=300), syntax=st.sampled_from(SYNTAXES))
def test_any_bytes_are_read_or_refused(data: bytes, syntax: str) -> None:
    _read_or_refuse(data, syntax)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    syntax=st.sampled_from(SYNTAXES),
    undefined_length=st.booleans(),
)
def test_damaged_requests_are_read_or_refused(
    places: list[tuple[int, int]], syntax: str, *, undefined_length: bool
) -> None:
    ds = _nested()
    del ds.ICCProfile
    data = bytearray(_encoded(ds, syntax, undefined_length=undefined_length))
    for place, value in places:
        data[place % len(data)] = value
    _read_or_refuse(bytes(data), syntax)


def _read_or_refuse(data: bytes, syntax: str) -> None:
    try:
        found: Attributes = read_attributes(data, syntax, SHAPE)
    except DataSetUnreadableError:
        return
    assert set(found) <= set(SHAPE)
