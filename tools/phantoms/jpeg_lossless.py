"""Writes JPEG Lossless, process 14, selection value 1 (ITU-T T.81 annex H), one 16-bit component.

None of the encoders within reach writes it: pydicom has no plug-in for it, and GDCM's Python
wrapper aborts the process when its objects die in the wrong order. The code is a few table
look-ups over whole images.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

PRECISION = 16
CODE_LENGTHS = (4, 4, 3, 3, 3, 3, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12)
"""Bits of the code of each difference category 0..16; short for what a noisy CT slice has most."""
NO_EXTRA_BITS = 16
"""Category whose one difference, 32768, needs no further bits (T.81 H.1.2.2)."""
WINDOW_BYTES = 5
"""12 bits of code, 15 further bits and 7 bits of offset fit in 40."""


def encode_jpeg_lossless(pixels: NDArray[np.int16] | NDArray[np.uint16]) -> bytes:
    """One JPEG stream of a (rows, columns) image; signed values as two's complement."""
    rows, columns = pixels.shape
    head = b"\xff\xd8" + _segment(
        0xC3, struct.pack(">BHHBBBB", PRECISION, rows, columns, 1, 1, 0x11, 0)
    )
    head += _segment(0xC4, _huffman_table())
    # One component with table 0; predictor 1; no point transform.
    head += _segment(0xDA, bytes((1, 1, 0, 1, 0, 0)))
    return head + _entropy_coded(_differences(pixels.view(np.uint16))) + b"\xff\xd9"


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _differences(samples: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Each sample less its left neighbour, modulo 2^16, in -32767..32768 (T.81 H.1.2.1)."""
    values = samples.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (PRECISION - 1)
    wrapped = (values - predicted).ravel() & 0xFFFF
    return np.where(wrapped > 1 << 15, wrapped - (1 << 16), wrapped)


def _codes() -> NDArray[np.int64]:
    """Canonical Huffman code of each category (T.81 C.2)."""
    codes = np.zeros(len(CODE_LENGTHS), np.int64)
    code, previous = 0, 0
    for category in _by_length():
        code <<= CODE_LENGTHS[category] - previous
        previous = CODE_LENGTHS[category]
        codes[category] = code
        code += 1
    return codes


def _by_length() -> list[int]:
    return sorted(range(len(CODE_LENGTHS)), key=lambda category: (CODE_LENGTHS[category], category))


def _huffman_table() -> bytes:
    counts = [sum(length == bits for length in CODE_LENGTHS) for bits in range(1, 17)]
    return bytes((0, *counts, *_by_length()))


def _entropy_coded(differences: NDArray[np.int64]) -> bytes:
    magnitude = np.abs(differences)
    # frexp gives the number of bits of an integer without a loop.
    category = np.frexp(magnitude)[1].astype(np.int64)
    extra = np.where(differences < 0, differences + (1 << category) - 1, differences)
    extra_bits = np.where(category == NO_EXTRA_BITS, 0, category)
    extra = np.where(category == NO_EXTRA_BITS, 0, extra)
    words = (_codes()[category] << extra_bits) | extra
    lengths = np.asarray(CODE_LENGTHS)[category] + extra_bits
    return _packed(words, lengths).replace(b"\xff", b"\xff\x00")


def _packed(words: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    """The words' low ``lengths`` bits one after the other, the last byte filled with ones."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    total = int(ends[-1])
    windows = words << (WINDOW_BYTES * 8 - lengths - (starts & 7))
    size = (total + 7) // 8
    packed = np.zeros(size + WINDOW_BYTES, np.int64)
    for place in range(WINDOW_BYTES):
        piece = (windows >> (8 * (WINDOW_BYTES - 1 - place))) & 0xFF
        # Words share no bit, so adding is joining.
        joined = np.bincount((starts >> 3) + place, weights=piece, minlength=len(packed))
        packed += joined.astype(np.int64)
    packed[size - 1] |= (1 << (-total % 8)) - 1
    return packed[:size].astype(np.uint8).tobytes()
