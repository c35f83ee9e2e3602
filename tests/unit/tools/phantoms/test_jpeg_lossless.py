from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.jpeg_lossless import _codes, encode_jpeg_lossless
from tools.phantoms.variants import PhantomName, make_study


def decode(
    stream: bytes, shape: tuple[int, int]
) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """A bit-by-bit reading of T.81 annexes F.2.2 and H.2, written from the standard alone."""
    scan = stream[stream.index(b"\xff\xda") + 10 : -2].replace(b"\xff\x00", b"\xff")
    table = stream[stream.index(b"\xff\xc4") + 5 :]
    counts, symbols = table[:16], table[16:33]
    lookup = {}
    code = position = 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            lookup[length, code] = symbols[position]
            code, position = code + 1, position + 1
        code <<= 1
    bits = "".join(f"{byte:08b}" for byte in scan)
    image = np.zeros(shape, np.int64)
    at = 0
    for row in range(shape[0]):
        for column in range(shape[1]):
            length = 1
            while (length, int(bits[at : at + length], 2)) not in lookup:
                length += 1
            category = lookup[length, int(bits[at : at + length], 2)]
            at += length
            difference = 1 << 15 if category == 16 else 0
            if 0 < category < 16:
                difference = int(bits[at : at + category], 2)
                at += category
                if difference < 1 << (category - 1):
                    difference -= (1 << category) - 1
            if column:
                predicted = int(image[row, column - 1])
            else:
                predicted = int(image[row - 1, 0]) if row else 1 << 15
            image[row, column] = (predicted + difference) & 0xFFFF
    assert set(bits[at:]) <= {"1"}
    assert len(bits) - at < 8
    return image.astype(np.uint16)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(np.uint16, shapes, elements=st.integers(0, 65535)))
def test_any_image_comes_back(pixels: np.ndarray[tuple[int, int], np.dtype[np.uint16]]) -> None:
    np.testing.assert_array_equal(decode(encode_jpeg_lossless(pixels), pixels.shape), pixels)


def test_every_difference_category_comes_back() -> None:
    steps = [0, 1, 2, 4, 9, 17, 33, 65, 129, 257, 513, 1025, 2049, 4097, 8193, 16385, 32768, 32767]
    pixels = (np.cumsum(steps) & 0xFFFF).astype(np.uint16).reshape(1, -1)

    np.testing.assert_array_equal(decode(encode_jpeg_lossless(pixels), pixels.shape), pixels)


def test_no_code_is_all_ones() -> None:
    widths = [int(code).bit_length() for code in _codes()]

    assert all(
        int(code) != (1 << width) - 1
        for code, width in zip(_codes(), widths, strict=True)
        if width > 11
    )


@pytest.mark.peer
def test_dcmtk_decodes_what_we_encode(tmp_path: Path) -> None:
    plain, packed = (
        next(make_study(PhantomName.HEAD_CT, slices=1, matrix=64, syntax=syntax).files())
        for syntax in (PhantomSyntax.EXPLICIT, PhantomSyntax.JPEG_LOSSLESS)
    )
    source, target = tmp_path / "packed.dcm", tmp_path / "plain.dcm"
    source.write_bytes(packed)

    subprocess.run(["dcmdjpeg", source, target], check=True)

    np.testing.assert_array_equal(
        pydicom.dcmread(target).pixel_array, pydicom.dcmread(io.BytesIO(plain)).pixel_array
    )
