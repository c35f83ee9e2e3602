"""A data set that is recognised instead of walked must come out as the walk would have it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from dicom_node.headers import scan_file
from dicom_node.lookalikes import Lookalikes
from dicom_node.scanner import BLOCK_BYTES, PIXEL_DATA, Encoding, Scan, scan_data_set

SOP_CLASS, SOP_INSTANCE, SLICE_LOCATION, POSITION, ROWS = (
    0x00080016,
    0x00080018,
    0x00201041,
    0x00200032,
    0x00280010,
)
WANTED = frozenset({SOP_CLASS, SOP_INSTANCE, POSITION, ROWS})
OWN = frozenset({SOP_INSTANCE, POSITION})


def element(tag: int, vr: bytes, value: bytes, *, implicit: bool = False) -> bytes:
    group, number = tag >> 16, tag & 0xFFFF
    if implicit:
        return struct.pack("<HHI", group, number, len(value)) + value
    if vr in (b"OW", b"SQ"):
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def data_set(
    *,
    instance: bytes = b"1.2.3.4 ",
    location: bytes = b"10.5",
    rows: int = 512,
    implicit: bool = False,
    position: bytes = b"1\\2\\30",
) -> bytes:
    return b"".join(
        element(tag, vr, value, implicit=implicit)
        for tag, vr, value in (
            (SOP_CLASS, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
            (SOP_INSTANCE, b"UI", instance),
            (POSITION, b"DS", position),
            (SLICE_LOCATION, b"DS", location),
            (ROWS, b"US", rows.to_bytes(2, "little")),
            (PIXEL_DATA, b"OW", bytes(64)),
        )
    )


def scan(data: bytes, known: Lookalikes | None = None, *, implicit: bool = False) -> Scan:
    encoding = Encoding(implicit_vr=implicit, little_endian=True)
    return scan_data_set(lambda at, n: data[at : at + n], len(data), encoding, WANTED, known)


def recognises(known: Lookalikes, data: bytes, *, implicit: bool = False) -> bool:
    return known.find(data[:BLOCK_BYTES], implicit_vr=implicit) is not None


@pytest.mark.parametrize("implicit", [False, True])
def test_the_next_image_of_a_series_is_recognised_and_has_values_of_its_own(
    implicit: bool,
) -> None:
    known = Lookalikes(OWN)
    scan(data_set(implicit=implicit), known, implicit=implicit)
    second = data_set(
        instance=b"1.2.3.5 ", location=b"-7.5", position=b"1\\2\\31", implicit=implicit
    )
    assert recognises(known, second, implicit=implicit)
    found = scan(second, known, implicit=implicit)
    assert found == scan(second, implicit=implicit)
    assert found.values[SOP_INSTANCE] == b"1.2.3.5 "
    assert found.values[POSITION] == b"1\\2\\31"


@pytest.mark.parametrize(
    "other",
    [
        data_set(rows=256),
        data_set(instance=b"1.2.3.40"[:6]),
        data_set(location=b"10.500"),
        data_set().replace(b"OW", b"OB"),
        data_set().replace(b"US\x02", b"SS\x02"),
        data_set()[:-80],
        element(0x00080008, b"CS", b"AXIAL ") + data_set(),
        data_set(implicit=True),
    ],
    ids=["value", "length", "unwanted", "pixel vr", "vr", "cut", "more", "implicit"],
)
def test_what_differs_elsewhere_is_walked(other: bytes) -> None:
    known = Lookalikes(OWN)
    scan(data_set(), known)
    assert not recognises(known, other)
    assert scan(other, known) == scan(other)


def test_the_first_of_two_elements_with_one_tag_counts_as_in_the_walk() -> None:
    def twice(first: bytes, second: bytes) -> bytes:
        double = element(SOP_INSTANCE, b"UI", first) + element(SOP_INSTANCE, b"UI", second)
        return double + data_set()[34 + 16 :]

    known = Lookalikes(OWN)
    scan(twice(b"1.1 ", b"1.2 "), known)
    other = twice(b"1.3 ", b"1.4 ")
    assert recognises(known, other)
    assert scan(other, known).values[SOP_INSTANCE] == b"1.3 "


def test_encapsulated_pixels_and_sequences_of_undefined_length_are_always_walked() -> None:
    known = Lookalikes(OWN)
    undefined = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    closed = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    for data in (undefined + closed + data_set(), data_set()[: -64 - 12] + pixels + bytes(64)):
        scan(data, known)
        assert not recognises(known, data)


def test_heads_are_forgotten_oldest_first() -> None:
    known = Lookalikes(OWN, most=2)
    sets = [data_set(location=b"1" * size) for size in (2, 4, 6)]
    for data in sets:
        scan(data, known)
    assert [known.find(data, implicit_vr=False) is not None for data in sets] == [False, True, True]


REAL = [
    get_testdata_file(name, download=False)
    for name in ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm")
]


@pytest.mark.parametrize("path", REAL, ids=lambda path: Path(path).name)
@given(changes=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=4))
def test_whatever_changes_in_a_real_file_the_scan_is_that_of_the_walk(
    path: str, changes: list[tuple[int, int]]
) -> None:
    found = scan_file(Path(path))
    data = bytearray(Path(path).read_bytes()[found.meta.data_set_offset :])
    known = Lookalikes(OWN)
    implicit = found.scan.encoding.implicit_vr
    scan(bytes(data), known, implicit=implicit)
    assert known.find(bytes(data), implicit_vr=implicit) is not None
    for place, value in changes:
        data[place % len(data)] = value
    changed = bytes(data)
    assert scan(changed, known, implicit=implicit) == scan(changed, implicit=implicit)
