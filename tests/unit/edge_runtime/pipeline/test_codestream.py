from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import get_frame

from edge_runtime.pipeline.codestream import CodestreamSize, jpeg2000_size, jpeg_size


def frame_of(path: Path) -> bytes:
    return get_frame(dcmread(path).PixelData, 0, number_of_frames=1)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", 64, 64),
        ("JPEGLSNearLossless_16.dcm", 50, 10),
        ("JPEG-lossy.dcm", 1024, 256),
        ("SC_rgb_jpeg_gdcm.dcm", 100, 100),
    ],
)
def test_jpeg_size_is_that_of_the_image(
    wheel_file: Callable[[str], Path], name: str, rows: int, columns: int
) -> None:
    size = jpeg_size(frame_of(wheel_file(name)))
    assert size is not None
    assert (size.rows, size.columns) == (rows, columns)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [("MR_small_jp2klossless.dcm", 64, 64), ("693_J2KI.dcm", 512, 512)],
)
def test_jpeg2000_size_is_that_of_the_image(
    wheel_file: Callable[[str], Path], name: str, rows: int, columns: int
) -> None:
    assert jpeg2000_size(frame_of(wheel_file(name))) == CodestreamSize(
        rows=rows, columns=columns, components=1
    )


def test_fill_bytes_tables_and_comments_are_stepped_over() -> None:
    start_of_frame = b"\xff\xc0\x00\x0b\x08\x00\x10\x00\x20\x01\x01\x11\x00"
    frame = b"\xff\xd8" + b"\xff\xff\xfe\x00\x04\xff\xc0" + b"\xff\xd0" + start_of_frame
    assert jpeg_size(frame) == CodestreamSize(rows=16, columns=32, components=1)


def test_scan_before_any_size_has_none() -> None:
    assert jpeg_size(b"\xff\xd8\xff\xda\x00\x04\x00\x00\xff\xc0" + bytes(20)) is None


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_parsers_fail(noise: bytes) -> None:
    for frame in (noise, b"\xff\xd8\xff" + noise, b"\xff\x4f\xff\x51" + noise):
        for parse in (jpeg_size, jpeg2000_size):
            size = parse(frame)
            assert size is None or isinstance(size, CodestreamSize)
