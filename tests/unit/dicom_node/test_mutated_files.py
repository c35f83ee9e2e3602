"""Whatever is done to a real data set, it is stored byte by byte or refused with a right status.

The changes follow the structure: elements are dropped, doubled, moved, nested, given other VRs,
lengths and values, and the transfer syntax may be another one than the bytes are written in.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from simulators.door import Door

from dicom_node.errors import DicomNodeError
from dicom_node.headers import read_headers, scan_file
from dicom_node.instance import InstanceHeader
from dicom_node.scanner import ElementPlace, Encoding, walk_top_level
from dicom_node.status import StoreStatus

_MAX_SAMPLE_BYTES = 300_000
_SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEG2000Lossless,
    uid.RLELossless,
)
_VRS = (b"UN", b"SQ", b"OB", b"UT", b"US", b"PN", b"UI", b"zz", b"\0\0")
# Of the command set, the file meta group, and the end of a sequence.
_ALIEN_TAGS = (0x00000002, 0x00020010, 0x00080000, 0xFFFEE0DD)
_LENGTHS = (0, 1, 2, 7, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A real data set, cut at its top-level elements."""

    name: str
    header: InstanceHeader
    elements: tuple[bytes, ...]


def _sample(path: Path) -> Sample | None:
    """A file that the node would take; None for any other."""
    if path.stat().st_size > _MAX_SAMPLE_BYTES:
        return None
    try:
        header, _ = read_headers(path)
        start = scan_file(path).meta.data_set_offset
    except DicomNodeError:
        return None
    data_set = path.read_bytes()[start:]
    places: list[ElementPlace] = []
    walk_top_level(
        lambda offset, length: data_set[offset : offset + length],
        len(data_set),
        Encoding(
            implicit_vr=header.transfer_syntax_uid == uid.ImplicitVRLittleEndian,
            little_endian=header.transfer_syntax_uid != uid.ExplicitVRBigEndian,
        ),
        places.append,
    )
    cuts = [each.offset for each in places] + [len(data_set)]
    elements = tuple(data_set[begin:end] for begin, end in pairwise(cuts))
    return Sample(name=path.name, header=header, elements=elements)


@pytest.fixture(scope="module")
def samples(real_files: list[Path]) -> list[Sample]:
    found = [sample for path in real_files if (sample := _sample(path)) is not None]
    assert len(found) >= 40
    return found


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    return Door(tmp_path_factory.mktemp("spool"))


def _written_over(element: bytes, at: int, value: bytes) -> bytes:
    return element[:at] + value + element[at + len(value) :]


@st.composite
def _mutated(draw: st.DrawFn, elements: Sequence[bytes]) -> bytes:
    """The data set after up to six changes, and perhaps cut off."""
    changed = list(elements)
    for _ in range(draw(st.integers(0, 6))):
        index = draw(st.integers(0, max(0, len(changed) - 1)))
        if draw(st.booleans()) and changed:
            changed[index] = draw(_rewritten(changed[index]))
        else:
            changed = draw(_reordered(changed, index))
    data_set = b"".join(changed)
    return data_set[: draw(st.integers(0, len(data_set)))] if draw(st.booleans()) else data_set


@st.composite
def _rewritten(draw: st.DrawFn, element: bytes) -> bytes:
    """Another VR, another length, or another value."""
    kind = draw(st.sampled_from(("vr", "length", "value", "nothing")))
    if kind == "vr":
        return _written_over(element, 4, draw(st.sampled_from(_VRS)))
    if kind == "length":
        length = struct.pack("<I", draw(st.sampled_from(_LENGTHS)))
        return _written_over(element, draw(st.sampled_from((4, 6, 8))), length)
    return element[:8] + draw(st.binary(max_size=64)) if kind == "value" else b""


@st.composite
def _reordered(draw: st.DrawFn, elements: Sequence[bytes], index: int) -> list[bytes]:
    """Something doubled, moved, nested or put between."""
    changed = list(elements)
    kind = draw(st.sampled_from(("twice", "elsewhere", "nested", "bytes", "tag")))
    there = draw(st.integers(0, len(elements)))
    if kind in ("twice", "elsewhere"):
        changed[there:there] = elements[index : index + 1]
    if kind == "elsewhere":
        del changed[index : index + 1]
    if kind == "nested":
        changed[index:] = [_nested(b"".join(elements[index:]), draw(st.integers(1, 100)))]
    if kind == "bytes":
        changed.insert(there, draw(st.binary(max_size=64)))
    if kind == "tag":
        tag = draw(st.sampled_from(_ALIEN_TAGS))
        changed.insert(there, struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", 0))
    return changed


def _nested(data: bytes, depth: int) -> bytes:
    """``data`` in sequences of undefined length, which are never closed."""
    sequence = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF)
    return (sequence + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * depth + data


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_mutated_data_set_is_stored_as_it_is_or_refused_with_the_right_status(
    samples: list[Sample], door: Door, data: st.DataObject
) -> None:
    sample = data.draw(st.sampled_from(samples), label="sample")
    data_set = data.draw(_mutated(sample.elements), label="data set")
    real = uid.UID(sample.header.transfer_syntax_uid)
    syntax = data.draw(st.just(real) | st.sampled_from(_SYNTAXES), label="syntax")
    instance = data.draw(st.just(sample.header.sop_instance_uid) | st.just("1.2.3"), label="UID")
    status = door.push(
        data_set, sop_class=sample.header.sop_class_uid, sop_instance=instance, syntax=syntax
    )
    # A700 would mean an exception, or that our device is to blame.
    assert status in (
        StoreStatus.SUCCESS,
        StoreStatus.DATA_SET_MISMATCH,
        StoreStatus.CANNOT_UNDERSTAND,
    )
    stored = door.take()
    door.forget()
    assert (stored is not None) == (status is StoreStatus.SUCCESS)


def test_unchanged_data_sets_are_stored_byte_by_byte(samples: list[Sample], door: Door) -> None:
    for sample in samples:
        data_set = b"".join(sample.elements)
        status = door.push(
            data_set,
            sop_class=sample.header.sop_class_uid,
            sop_instance=sample.header.sop_instance_uid,
            syntax=sample.header.transfer_syntax_uid,
        )
        assert status is StoreStatus.SUCCESS, sample.name
        stored = door.take()
        assert stored is not None
        assert stored.read_bytes().endswith(data_set)
        door.forget()
