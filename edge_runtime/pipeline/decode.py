"""Stored values of one image file, native or compressed.

Native pixels are read straight into the array; compressed ones go through pydicom's decoders with
the plugin named here, never through whichever is installed. Everything that the sender controls is
checked before a decoder sees it: the size that the header promises, and that the code stream
itself promises the same.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.codestream import CodestreamSize, jpeg2000_size, jpeg_size
from edge_runtime.pipeline.errors import CodecMissingError, DecodeError
from engines.preprocessing.padding import PaddingRange
from engines.preprocessing.values import Mask

StoredPixels = npt.NDArray[np.integer[Any]]

# A 4,300 x 4,300 radiograph has 37 MB; nothing single-frame that we analyse is larger.
MAX_PIXEL_BYTES = 64 * 1024 * 1024
# A deflated data set holds its pixels and some kilobytes of header; private data may be larger.
MAX_DEFLATED_OVERHEAD_BYTES = 16 * 1024 * 1024
# Preamble, "DICM", and the element FileMetaInformationGroupLength itself (PS3.10 7.1).
META_GROUP_START = 128 + 4 + 12

NATIVE_SYNTAXES: frozenset[str] = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
    }
)
# First available plugin wins. pylibjpeg stands only where its permissive codecs do the work:
# for JPEG and JPEG-LS it would load pylibjpeg-libjpeg, which is GPL.
PLUGINS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        JPEGBaseline8Bit: ("gdcm",),
        JPEGExtended12Bit: ("gdcm",),
        JPEGLossless: ("gdcm",),
        JPEGLosslessSV1: ("gdcm",),
        JPEGLSLossless: ("pyjpegls", "gdcm"),
        JPEGLSNearLossless: ("pyjpegls", "gdcm"),
        JPEG2000Lossless: ("pylibjpeg", "gdcm"),
        JPEG2000: ("pylibjpeg", "gdcm"),
        HTJ2KLossless: ("pylibjpeg",),
        HTJ2KLosslessRPCL: ("pylibjpeg",),
        HTJ2K: ("pylibjpeg",),
        RLELossless: ("pylibjpeg", "pydicom"),
    }
)
JPEG2000_FAMILY = frozenset({JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K})


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """What the header promises about the pixels."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric_interpretation: str

    @property
    def dtype(self) -> np.dtype[np.integer[Any]]:
        """Little-endian type of one stored value."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def stored_range(self) -> tuple[int, int]:
        """The lowest and the highest value that BitsStored can express."""
        low = -(1 << (self.bits_stored - 1)) if self.signed else 0
        return low, low + (1 << self.bits_stored) - 1

    @property
    def frame_bytes(self) -> int:
        """Size of the decoded frame."""
        return self.rows * self.columns * self.bits_allocated // 8


def read_pixels(
    path: Path,
    header: InstanceHeader,
    *,
    max_bytes: int = MAX_PIXEL_BYTES,
    into: StoredPixels | None = None,
) -> StoredPixels:
    """Read the one frame of a stored file.

    Args:
        path: DICOM file (PS3.10).
        header: of the same instance.
        max_bytes: bound on the decoded frame.
        into: contiguous (rows, columns) of the layout's type, where native pixels are read to
            without a copy; None for memory of their own.

    Returns:
        (rows, columns) stored values of 8 or 16 bits, signed as PixelRepresentation says, with
        unused high bits cleared or sign-extended; writeable; ``into`` where it was given.

    Raises:
        DecodeError: the pixels are not of a kind that we read, too large, or damaged.
        CodecMissingError: this installation lacks the codec.
        OSError: the file cannot be read.
    """
    layout = pixel_layout(header, max_bytes=max_bytes)
    if into is not None:
        _check_fits(into, layout)
    syntax = header.transfer_syntax_uid
    if syntax in NATIVE_SYNTAXES:
        stored = _native(path, header, layout, into)
    elif syntax in PLUGINS:
        stored = _decompressed(path, layout, UID(syntax))
    else:
        raise DecodeError(
            ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED, f"transfer syntax {syntax} is not one we decode"
        )
    cleaned = _without_unused_bits(stored, layout, _padding_of(stored, header))
    if into is None or cleaned is into:
        return cleaned
    np.copyto(into, cleaned)
    return into


def _check_fits(into: StoredPixels, layout: PixelLayout) -> None:
    if into.shape != (layout.rows, layout.columns) or into.dtype != layout.dtype:
        raise DecodeError(
            ReasonCode.INCONSISTENT_IMAGES, "images of one stack differ in size or in pixel format"
        )


def pixel_layout(header: InstanceHeader, *, max_bytes: int = MAX_PIXEL_BYTES) -> PixelLayout:
    """Check what the header promises (PS3.3 C.7.6.3), without touching the file.

    Raises:
        DecodeError: multi-frame, colour, unusual depth, missing attributes, or too large.
    """
    if (header.number_of_frames or 1) != 1:
        raise DecodeError(
            ReasonCode.MULTIFRAME_NOT_SUPPORTED, f"{header.number_of_frames} frames in one file"
        )
    if not header.has_pixel_data or not header.rows or not header.columns:
        raise DecodeError(ReasonCode.UNDECODABLE_PIXELS, "no pixel data, Rows or Columns")
    photometric = header.photometric_interpretation or ""
    if (header.samples_per_pixel or 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise DecodeError(ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED, "not a greyscale image")
    allocated, stored = header.bits_allocated, header.bits_stored
    if allocated not in {8, 16} or stored is None or not 1 <= stored <= allocated:
        raise DecodeError(
            ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED,
            f"{allocated} bits allocated, {stored} stored: only 8 and 16 are read",
        )
    layout = PixelLayout(
        rows=header.rows,
        columns=header.columns,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=header.pixel_representation == 1,
        photometric_interpretation=photometric,
    )
    if layout.frame_bytes > max_bytes:
        raise DecodeError(
            ReasonCode.PIXELS_TOO_LARGE, f"{layout.frame_bytes} bytes decoded, limit {max_bytes}"
        )
    return layout


def _native(
    path: Path, header: InstanceHeader, layout: PixelLayout, into: StoredPixels | None
) -> StoredPixels:
    syntax = header.transfer_syntax_uid
    big_endian = syntax == ExplicitVRBigEndian
    if big_endian and layout.bits_allocated == 8:  # noqa: PLR2004 - bits of a byte
        raise DecodeError(
            ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED, "8-bit big endian pixels may be byte-swapped"
        )
    native = layout.dtype.newbyteorder("=")
    if syntax == DeflatedExplicitVRLittleEndian:
        stored = _first_frame(_inflated_pixels(path, layout), layout)
    elif header.pixel_data_offset is None:
        stored = _first_frame(_file_pixel_data(path), layout)
    elif (header.pixel_data_length or 0) < layout.frame_bytes:
        raise _too_short()
    else:
        stored = np.empty((layout.rows, layout.columns), dtype=native) if into is None else into
        _fill(stored, path, header.pixel_data_offset)
    if big_endian == (sys.byteorder == "little"):
        stored.byteswap(inplace=True)
    return stored


def _fill(stored: StoredPixels, path: Path, offset: int) -> None:
    """Read a file's bytes from an offset on until the array is full."""
    left = stored.data.cast("B")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while left:
            count = os.preadv(descriptor, [left], offset)
            if not count:
                raise _too_short()
            left, offset = left[count:], offset + count
    finally:
        os.close(descriptor)


def _too_short() -> DecodeError:
    return DecodeError(ReasonCode.UNDECODABLE_PIXELS, "pixel data shorter than the image")


def _first_frame(value: bytes, layout: PixelLayout) -> StoredPixels:
    """The bytes of the frame as they are, in memory of its own."""
    if len(value) < layout.frame_bytes:
        raise _too_short()
    frame = np.frombuffer(value[: layout.frame_bytes], dtype=layout.dtype.newbyteorder("="))
    return frame.reshape(layout.rows, layout.columns).copy()


def _inflated_pixels(path: Path, layout: PixelLayout) -> bytes:
    """PixelData of a deflated file (PS3.5 A.5), never inflating more than the bound."""
    start = META_GROUP_START + read_file_meta_info(path).FileMetaInformationGroupLength
    bound = layout.frame_bytes + MAX_DEFLATED_OVERHEAD_BYTES
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as file:
        file.seek(start)
        try:
            inflated = inflater.decompress(file.read(bound), bound)
        except zlib.error as error:
            raise DecodeError(ReasonCode.UNDECODABLE_PIXELS, "deflated data is damaged") from error
    if inflater.unconsumed_tail:
        raise DecodeError(
            ReasonCode.PIXELS_TOO_LARGE, f"deflated data set holds more than {bound} bytes"
        )
    return _pixel_data(
        lambda: read_dataset(BytesIO(inflated), is_implicit_VR=False, is_little_endian=True)
    )


def _decompressed(path: Path, layout: PixelLayout, syntax: UID) -> StoredPixels:
    if syntax == JPEGExtended12Bit and layout.bits_stored != 8:  # noqa: PLR2004 - bits of a byte
        raise DecodeError(
            ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED, "no permissive codec reads 12-bit JPEG Extended"
        )
    decoder = get_decoder(syntax)
    plugin = next((name for name in PLUGINS[syntax] if name in decoder.available_plugins), None)
    if plugin is None:
        raise CodecMissingError(
            f"no codec for {syntax.name}: reinstall edge-triage with its dependencies"
        )
    encapsulated = _file_pixel_data(path)
    try:
        _check_codestream(get_frame(encapsulated, 0, number_of_frames=1), layout, syntax)
        stored, _ = decoder.as_array(
            encapsulated, index=0, raw=True, decoding_plugin=plugin, **_decoder_options(layout)
        )
    except (DecodeError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # Foreign decoders raise anything at all on damaged bytes; those written in Rust panic, and
        # a panic is no Exception.
        raise DecodeError(
            ReasonCode.UNDECODABLE_PIXELS, f"{plugin} cannot decode {syntax.name}"
        ) from error
    if stored.shape != (layout.rows, layout.columns):
        raise DecodeError(ReasonCode.UNDECODABLE_PIXELS, "decoded size differs from the header's")
    expected = layout.dtype.newbyteorder("=")
    return stored.astype(expected, copy=stored.dtype != expected or not stored.flags.writeable)


def _decoder_options(layout: PixelLayout) -> dict[str, Any]:
    """What pydicom needs beside the bytes; Any, because it types each option as all of them."""
    return {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": layout.photometric_interpretation,
        "pixel_keyword": "PixelData",
    }


def _check_codestream(frame: bytes, layout: PixelLayout, syntax: UID) -> None:
    """Refuse a code stream that promises another size than the header: decoders believe it."""
    if syntax == RLELossless:
        return  # RLE carries no size: its decoders stop at the header's.
    size = jpeg2000_size(frame) if syntax in JPEG2000_FAMILY else jpeg_size(frame)
    if size != CodestreamSize(rows=layout.rows, columns=layout.columns, components=1):
        raise DecodeError(
            ReasonCode.UNDECODABLE_PIXELS, "code stream and header promise different sizes"
        )


def _file_pixel_data(path: Path) -> bytes:
    with path.open("rb") as file:
        return _pixel_data(lambda: dcmread(file, specific_tags=["PixelData"]))


def _pixel_data(read: Callable[[], Dataset]) -> bytes:
    try:
        element = read().get_item("PixelData")
    except OSError:
        raise
    except Exception as error:
        # A parser fed with damaged bytes raises anything at all.
        raise DecodeError(ReasonCode.UNDECODABLE_PIXELS, "data set cannot be parsed") from error
    if element is None or not isinstance(element.value, bytes):
        raise DecodeError(ReasonCode.UNDECODABLE_PIXELS, "no pixel data in the file")
    return element.value


def _padding_of(stored: StoredPixels, header: InstanceHeader) -> PaddingRange | None:
    if header.pixel_padding_value is None:
        return None
    limit = header.pixel_padding_range_limit
    return PaddingRange.of(header.pixel_padding_value, limit, stored)


def _without_unused_bits(
    stored: StoredPixels, layout: PixelLayout, padding: PaddingRange | None
) -> StoredPixels:
    """Clear or sign-extend the bits above HighBit, where old writers put overlays, in place.

    Padding that needs those bits is left alone: preprocessing looks for it.
    """
    unused = layout.bits_allocated - layout.bits_stored
    if unused == 0 or _is_within(stored, layout):
        return stored
    kept = _padding_beyond(stored, layout, padding)
    if layout.signed:
        np.left_shift(stored, unused, out=stored)
        np.right_shift(stored, unused, out=stored)
    else:
        np.bitwise_and(stored, layout.stored_range[1], out=stored)
    if kept is not None:
        where, values = kept
        stored[where] = values
    return stored


def _is_within(stored: StoredPixels, layout: PixelLayout) -> bool:
    """Whether BitsStored can express every value: to look is cheaper than to write."""
    low, high = layout.stored_range
    return bool(stored.max() <= high and (not layout.signed or stored.min() >= low))


def _padding_beyond(
    stored: StoredPixels, layout: PixelLayout, padding: PaddingRange | None
) -> tuple[Mask, StoredPixels] | None:
    """Where padding lies and its values there, if BitsStored cannot express all of it."""
    low, high = layout.stored_range
    if padding is None or low <= padding.low <= padding.high <= high:
        return None
    where = padding.mask(stored)
    return where, stored[where]
