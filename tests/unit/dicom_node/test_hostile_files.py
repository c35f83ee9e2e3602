"""Bytes that want to hurt, through the door and through the scanner."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import python_encoding
from pydicom.data import get_testdata_file
from simulators.door import Door
from simulators.rogue_modality import CT, EXPLICIT, explicit_element, make_instance, us

from dicom_node.errors import DataSetUnreadableError, DicomNodeError
from dicom_node.file_meta import encode_file_meta, read_file_meta
from dicom_node.headers import header_of, identity_of, read_headers, scan_file
from dicom_node.scanner import BLOCK_BYTES, MAX_ELEMENTS, Encoding, scan_data_set
from dicom_node.status import StoreStatus
from dicom_node.values import codecs_of, text_of

_IMPLICIT, _DEFLATED, _BIG_ENDIAN = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
_IMAGE = make_instance(1)
_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
_ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


@contextmanager
def _memory_below(bound_bytes: int) -> Iterator[None]:
    """What Python allocates in the block, at its peak."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < bound_bytes
    finally:
        tracemalloc.stop()


def _opened(tag: int, vr: bytes = b"SQ") -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, 0xFFFFFFFF)


def _before_pixels(middle: bytes) -> bytes:
    """The image with ``middle`` between its header and its pixels."""
    at = _IMAGE.data_set.index(struct.pack("<HH", 0x7FE0, 0x0010))
    return _IMAGE.data_set[:at] + middle + _IMAGE.data_set[at:]


def _file(folder: Path, data_set: bytes, syntax: str = EXPLICIT) -> Path:
    meta = encode_file_meta(
        sop_class_uid=CT,
        sop_instance_uid=_IMAGE.sop_instance,
        transfer_syntax_uid=syntax,
        source_ae_title="",
    )
    path = folder / "hostile.dcm"
    path.write_bytes(meta + data_set)
    return path


@pytest.fixture(scope="module")
def lasting_door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    return Door(tmp_path_factory.mktemp("spool"))


@pytest.fixture
def door(lasting_door: Door) -> Iterator[Door]:
    yield lasting_door
    lasting_door.forget()


def _push(door: Door, data_set: bytes, syntax: str = EXPLICIT) -> StoreStatus:
    """Push as the image; what is stored must be those bytes, and what is refused is not stored."""
    status = door.push(data_set, sop_class=CT, sop_instance=_IMAGE.sop_instance, syntax=syntax)
    stored = door.take()
    assert (stored is not None) == (status is StoreStatus.SUCCESS)
    if stored is not None:
        assert stored.read_bytes().endswith(data_set)
    return status


# ---------------------------------------------------------------- executables


@pytest.mark.parametrize(
    "magic", [b"\x7fELF", b"MZ\x90\0", b"#!/bin/sh\nexit\n", b"\xca\xfe\xba\xbe"]
)
def test_executable_before_the_data_set_never_reaches_the_disk(door: Door, magic: bytes) -> None:
    program = magic.ljust(128, b"\0")
    assert _push(door, program + b"DICM" + _IMAGE.data_set) is StoreStatus.CANNOT_UNDERSTAND
    assert _push(door, program + _IMAGE.data_set) is StoreStatus.CANNOT_UNDERSTAND


def test_stored_file_begins_with_nothing_and_cannot_be_executed(door: Door) -> None:
    assert _push(door, _IMAGE.data_set) is StoreStatus.SUCCESS
    (row,) = door.inbox.rows.values()
    stored = door.spool.absolute(row.path)
    assert stored.read_bytes()[:132] == bytes(128) + b"DICM"
    assert stored.stat().st_mode & 0o111 == 0


# ---------------------------------------------------------------- structure

_STRUCTURES = {
    "a length beyond the end": struct.pack("<HH2sHI", 0x0029, 0x1010, b"OB", 0, 0xFFFFFFF0),
    "a text length beyond the end": struct.pack("<HH2sH", 0x0029, 0x1010, b"LO", 0xFFFF),
    "10,000 sequences in each other": (_opened(0x00400275) + _ITEM) * 10_000,
    "10,000 closed sequences": (_opened(0x00400275) + _ITEM) * 10_000
    + (_ITEM_END + _SEQUENCE_END) * 10_000,
    "10,000 unknown values in each other": (_opened(0x00291010, b"UN") + _ITEM) * 10_000,
    "a million elements": explicit_element(0x00291010, b"LO", b"") * 1_000_000,
    "a million empty items": _opened(0x00400275)
    + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
    + _SEQUENCE_END,
    "a million item ends": _ITEM_END * 1_000_000,
    "text of undefined length": _opened(0x00291010, b"UT") + b"no end",
    "bytes of undefined length": _opened(0x00291010, b"OB") + b"no item",
    "an item without a sequence": _ITEM,
    "the end of a sequence that never began": _SEQUENCE_END,
    "an item that is longer than its sequence": explicit_element(
        0x00400275, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0x7FFFFFFF)
    ),
    "functional groups that claim 4 GB": struct.pack(
        "<HH2sHI", 0x5200, 0x9230, b"SQ", 0, 0xFFFFFFFE
    ),
    "functional groups in functional groups": (_opened(0x52009230) + _ITEM) * 1000,
    "VRs that are none": struct.pack("<HH2sH", 0x0029, 0x1010, b"??", 4) + b"abcd",
    "tags in the wrong order": explicit_element(0x00080005, b"CS", b"ISO_IR 100"),
    "zeros": bytes(1 << 20),
}


@pytest.mark.parametrize("words", _STRUCTURES)
def test_broken_structure_behind_the_uids_is_stored_as_it_is(door: Door, words: str) -> None:
    # What the scanner found before the break is enough: all UIDs stand before it.
    assert _push(door, _before_pixels(_STRUCTURES[words])) is StoreStatus.SUCCESS


@pytest.mark.parametrize("words", _STRUCTURES)
def test_broken_structure_before_the_uids_is_refused_or_they_are_found_behind_it(
    door: Door, words: str
) -> None:
    status = _push(door, _STRUCTURES[words] + _IMAGE.data_set)
    assert status in (StoreStatus.SUCCESS, StoreStatus.CANNOT_UNDERSTAND)


@pytest.mark.parametrize("words", _STRUCTURES)
@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("little", [False, True])
def test_scanner_stops_at_its_bounds_in_every_encoding(
    words: str, implicit: bool, little: bool
) -> None:
    data = _STRUCTURES[words]
    reads = 0

    def read_at(offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        assert length <= BLOCK_BYTES
        return data[offset : offset + length]

    encoding = Encoding(implicit_vr=implicit, little_endian=little)
    scan = scan_data_set(read_at, len(data), encoding, frozenset())
    assert scan.pixels is None
    assert reads <= min(MAX_ELEMENTS, len(data) // (BLOCK_BYTES // 2) + 2)


@pytest.mark.parametrize(
    "words", ["10,000 sequences in each other", "functional groups that claim 4 GB", "zeros"]
)
def test_structure_costs_no_memory(door: Door, words: str) -> None:
    data_set = _before_pixels(_STRUCTURES[words][: 1 << 18])
    with _memory_below(2 << 20):
        assert _push(door, data_set) is StoreStatus.SUCCESS


@pytest.mark.parametrize("group", [0x0000, 0x0002])
@pytest.mark.parametrize("where", ["before", "within"])
def test_elements_of_command_and_file_meta_in_a_data_set_change_nothing(
    door: Door, group: int, where: str
) -> None:
    """PS3.5 7.1 forbids them; a reader of the file must not take them for its meta group."""
    alien = explicit_element(group << 16 | 0x0010, b"UI", b"1.2.840.10008.1.2\0")
    alien += explicit_element(group << 16 | 0x0002, b"UI", b"1.2.3\0")
    data_set = alien + _IMAGE.data_set if where == "before" else _before_pixels(alien)
    assert _push(door, data_set) in (StoreStatus.SUCCESS, StoreStatus.CANNOT_UNDERSTAND)
    for row in door.inbox.rows.values():
        assert row.header.transfer_syntax_uid == EXPLICIT


# ---------------------------------------------------------------- lies about pixels


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00280010, b"US", us(0xFFFF)),
        (0x00280011, b"US", us(0xFFFF)),
        (0x00280008, b"IS", b"1000000000"),
        (0x00280008, b"IS", b"9" * 60),
        (0x00280008, b"IS", b"-1"),
        (0x00280008, b"IS", b"1e9 "),
        (0x00280100, b"US", us(0xFFFF)),
        (0x00280002, b"US", us(0)),
        (0x00280010, b"OB", b""),
        (0x00280010, b"US", b"\1"),
    ],
)
def test_lies_about_the_pixels_are_stored_and_cost_nothing(
    door: Door, tag: int, vr: bytes, value: bytes
) -> None:
    at = _IMAGE.data_set.index(struct.pack("<HH", 0x0028, 0x0010))
    lie = explicit_element(tag, vr, value)
    with _memory_below(8 << 20):
        assert _push(door, _IMAGE.data_set[:at] + lie + _IMAGE.data_set[at:]) == 0


def test_pixel_length_of_four_gigabytes_is_no_offset(door: Door) -> None:
    cut = _IMAGE.data_set.index(struct.pack("<HH", 0x7FE0, 0x0010))
    for length in (0xFFFFFFFE, 0x7FFFFFFF, len(_IMAGE.data_set)):
        lie = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, length) + b"short"
        assert _push(door, _IMAGE.data_set[:cut] + lie) is StoreStatus.SUCCESS
        (row,) = door.inbox.rows.values()
        assert row.header.has_pixel_data
        assert row.header.pixel_data_offset is None
        door.forget()


# ---------------------------------------------------------------- deflated


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)


def _bomb(head: bytes, megabytes: int) -> bytes:
    """``head`` and zeros; after a full flush the same block can follow as often as wanted."""
    return _deflated(head) + _deflated(bytes(1 << 20)) * megabytes + b"\x03\0"


def test_bomb_of_a_gigabyte_is_inflated_to_the_bound_only(door: Door) -> None:
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 1 << 30)
    head = _IMAGE.data_set[: _IMAGE.data_set.index(pixels[:4])]
    data_set = _bomb(head + pixels, 1024)
    assert len(data_set) < 2 << 20
    with _memory_below(64 << 20):  # the bound is 16 MB, of which there are some copies
        assert _push(door, data_set, _DEFLATED) is StoreStatus.SUCCESS
    door.forget()
    assert _push(door, _bomb(head, 1024), _DEFLATED) is StoreStatus.SUCCESS
    door.forget()
    assert _push(door, _bomb(b"", 1024), _DEFLATED) is StoreStatus.CANNOT_UNDERSTAND


@pytest.mark.parametrize("tail", [b"", b"\xff" * 100, b"\x03\0"])
def test_deflated_bytes_that_are_none_are_refused(door: Door, tail: bytes) -> None:
    assert _push(door, tail, _DEFLATED) is StoreStatus.CANNOT_UNDERSTAND
    cut = _deflated(_IMAGE.data_set)[:40] + tail
    assert _push(door, cut, _DEFLATED) is StoreStatus.CANNOT_UNDERSTAND


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    "charset",
    [
        b"ISO_IR 192",
        b"ISO_IR 9999",
        b"\\ISO 2022 IR 87",
        b"\\".join([b"ISO 2022 IR 149"] * 500),
        b"../../etc/passwd",
        b"rot13 ",
        b"zlib_codec",
        b"idna",
        b"\xff\xfe\x00\x01",
        b"",
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe^\x1b$",
        b"\x1b$B" * 1000,
        b"\x1b",
        b"^^^^=====\\\\\\",
        b"A" * 60_000,
        bytes(range(256)),
    ],
)
def test_bad_name_and_unknown_character_set_fail_no_store(
    door: Door, charset: bytes, name: bytes
) -> None:
    at = _IMAGE.data_set.index(struct.pack("<HH", 0x0010, 0x0010))
    data_set = (
        explicit_element(0x00080005, b"CS", charset)
        + _IMAGE.data_set[:at]
        + explicit_element(0x00100010, b"PN", name)
        + _IMAGE.data_set[at + 8 + 12 :]
    )
    assert _push(door, data_set) is StoreStatus.SUCCESS


_terms = st.lists(st.sampled_from(sorted(python_encoding)) | st.text(max_size=20), max_size=5)


@given(_terms, st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode()))
def test_any_bytes_become_text_in_any_character_sets(terms: list[str], raw: bytes) -> None:
    assert len(text_of(raw, codecs_of(terms))) <= 4 * len(raw)


# ---------------------------------------------------------------- cut-off files


def _named(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "image_dfl.dcm",
        "JPEG2000.dcm",
        "rtplan.dcm",
        "reportsi.dcm",
        "nested_priv_SQ.dcm",
        "UN_sequence.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
    ],
)
def test_file_cut_off_anywhere_is_read_or_declined(tmp_path: Path, name: str) -> None:
    whole, path = _named(name), tmp_path / "cut.dcm"
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        try:
            read_headers(path)
        except DicomNodeError:
            continue


def test_image_cut_off_anywhere_is_stored_so_or_refused(door: Door) -> None:
    statuses = set()
    for size in range(0, len(_IMAGE.data_set), 41):
        statuses.add(_push(door, _IMAGE.data_set[:size]))
        door.forget()
    assert statuses == {StoreStatus.SUCCESS, StoreStatus.CANNOT_UNDERSTAND}


@pytest.mark.parametrize("syntax", [_IMPLICIT, EXPLICIT, _BIG_ENDIAN, _DEFLATED, "1.2.3", ""])
@given(data_set=st.binary(max_size=400))
def test_any_bytes_are_a_scan_or_a_declared_error(
    tmp_path_factory: pytest.TempPathFactory, syntax: str, data_set: bytes
) -> None:
    path = _file(tmp_path_factory.getbasetemp(), data_set, syntax)
    try:
        found = scan_file(path)
        identity_of(found.scan)
        header_of(found)
    except DataSetUnreadableError:
        return


def test_scan_of_a_file_and_of_its_bytes_agree(
    tmp_path: Path, make_file: Callable[..., Path]
) -> None:
    """The same bytes, whether they lie in the receiving buffer or on the disk."""
    path = make_file()
    with path.open("rb") as stream:
        start = read_file_meta(stream.fileno()).data_set_offset
    door = Door(tmp_path / "spool")
    header, _ = read_headers(path)
    data_set = path.read_bytes()[start:]
    for piece_bytes in (1, 1000, len(data_set)):
        status = door.push(
            data_set,
            sop_class=header.sop_class_uid,
            sop_instance=header.sop_instance_uid,
            syntax=EXPLICIT,
            piece_bytes=piece_bytes,
        )
        assert status is StoreStatus.SUCCESS
        assert door.take() is not None
        door.forget()
