"""Pixels that lie about their size, or end early: a reason code, and no memory for the lie."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.errors import DicomNodeError
from dicom_node.headers import read_headers
from dicom_node.instance import InstanceHeader
from dicom_node.quiet import silence_dicom_libraries
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.decode import MAX_PIXEL_BYTES, read_pixels
from edge_runtime.pipeline.errors import DecodeError

WheelFile = Callable[[str], Path]
HeaderOf = Callable[[Path], InstanceHeader]

# One of each kind of pixel data: native, deflated, and each family of codecs.
_FILES = (
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "image_dfl.dcm",
)
_SMALL_BYTES = 4 << 20


@contextmanager
def _memory_below(bound_bytes: int) -> Iterator[None]:
    """What Python and numpy allocate in the block, at its peak."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < bound_bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((0xFFFF, 0xFFFF, None), ReasonCode.PIXELS_TOO_LARGE),
        ((0xFFFF, 0xFFFF, 10**9), ReasonCode.MULTIFRAME_NOT_SUPPORTED),
        ((1, 1, 10**9), ReasonCode.MULTIFRAME_NOT_SUPPORTED),
        ((1, 1, -1), ReasonCode.MULTIFRAME_NOT_SUPPORTED),
        ((0, 0xFFFF, None), ReasonCode.UNDECODABLE_PIXELS),
    ],
)
def test_size_beyond_the_bound_is_refused_before_anything_is_allocated(
    wheel_file: WheelFile,
    header_of: HeaderOf,
    name: str,
    size: tuple[int, int, int | None],
    reason: ReasonCode,
) -> None:
    path, (rows, columns, frames) = wheel_file(name), size
    lie = replace(header_of(path), rows=rows, columns=columns, number_of_frames=frames)
    with _memory_below(1 << 20), pytest.raises(DecodeError) as caught:
        read_pixels(path, lie)
    assert caught.value.reason is reason


@pytest.mark.parametrize("name", [name for name in _FILES if name != "image_dfl.dcm"])
def test_size_within_the_bound_that_the_bytes_do_not_have_is_refused(
    wheel_file: WheelFile, header_of: HeaderOf, name: str
) -> None:
    path = wheel_file(name)
    honest = header_of(path)
    assert honest.bits_allocated is not None
    rows = MAX_PIXEL_BYTES // 5000 // (honest.bits_allocated // 8)
    # A decoder of RLE has no other size to go by: it may use the bound, and not much more.
    bound = 3 * MAX_PIXEL_BYTES if "RLE" in name else _SMALL_BYTES
    with _memory_below(bound), pytest.raises(DecodeError) as caught:
        read_pixels(path, replace(honest, rows=rows, columns=5000))
    assert caught.value.reason is ReasonCode.UNDECODABLE_PIXELS


@pytest.mark.parametrize("name", _FILES)
def test_file_cut_off_anywhere_gives_its_pixels_or_a_reason(
    wheel_file: WheelFile, tmp_path: Path, name: str
) -> None:
    silence_dicom_libraries()
    whole, path = wheel_file(name).read_bytes(), tmp_path / "cut.dcm"
    step = max(97, len(whole) // 97 // 150 * 97)
    for size in range(0, len(whole), step):
        path.write_bytes(whole[:size])
        try:
            header, _ = read_headers(path)
            read_pixels(path, header)
        except (DicomNodeError, DecodeError):
            continue


@pytest.mark.parametrize("name", _FILES)
def test_pixels_with_any_byte_changed_are_pixels_or_a_reason(
    wheel_file: WheelFile, tmp_path: Path, name: str
) -> None:
    silence_dicom_libraries()
    whole, path = wheel_file(name).read_bytes(), tmp_path / "changed.dcm"
    step = max(1, len(whole) // 200)
    for at in range(0, len(whole), step):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            header, _ = read_headers(path)
            read_pixels(path, header)
        except (DicomNodeError, DecodeError):
            continue
