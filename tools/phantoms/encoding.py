"""Transfer syntaxes of phantom studies: lossless, and one with loss for the gate to refuse."""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tools.phantoms.jpeg_lossless import encode_jpeg_lossless

StoredImage = NDArray[np.int16] | NDArray[np.uint16]


class PhantomSyntax(str, Enum):
    """Transfer syntaxes by the names that the command line uses."""

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"
    JPEG2000 = "jpeg2000"
    JPEG_LS = "jpeg-ls"
    JPEG_LOSSLESS = "jpeg-lossless"
    RLE = "rle"

    @property
    def uid(self) -> UID:
        """UID of the transfer syntax (PS3.5 annex A)."""
        return _UIDS[self]


_UIDS = {
    PhantomSyntax.EXPLICIT: ExplicitVRLittleEndian,
    PhantomSyntax.IMPLICIT: ImplicitVRLittleEndian,
    PhantomSyntax.JPEG2000: JPEG2000Lossless,
    PhantomSyntax.JPEG_LS: JPEGLSLossless,
    PhantomSyntax.JPEG_LOSSLESS: JPEGLosslessSV1,
    PhantomSyntax.RLE: RLELossless,
}


LOSSY_RATIO = 20
"""Uncompressed over compressed size."""


def encode_with_loss(dataset: Dataset) -> None:
    """Bring an uncompressed data set into irreversible JPEG 2000, in place, and say so in it.

    PS3.3 C.7.6.1.1.5.
    """
    from openjpeg.utils import encode_array  # noqa: PLC0415 - as in _frame

    frame = encode_array(
        _stored(dataset),
        bits_stored=int(dataset.BitsStored),
        photometric_interpretation=2,
        compression_ratios=[LOSSY_RATIO],
    )
    _put_frame(dataset, frame, JPEG2000)
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = str(LOSSY_RATIO)
    dataset.LossyImageCompressionMethod = "ISO_15444_1"


def encode_pixels(dataset: Dataset, syntax: PhantomSyntax) -> None:
    """Bring an uncompressed data set into ``syntax``, in place.

    One without pixels stays in explicit little endian when the syntax is for images only.
    """
    if not syntax.uid.is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = syntax.uid
        return
    if "PixelData" not in dataset:
        return
    frame = _frame(_stored(dataset), int(dataset.BitsStored), syntax)
    _put_frame(dataset, frame, syntax.uid)


def _stored(dataset: Dataset) -> StoredImage:
    """Stored values (rows, columns) of an uncompressed data set."""
    stored = np.frombuffer(dataset.PixelData, np.uint16).reshape(dataset.Rows, dataset.Columns)
    return stored.view(np.int16) if dataset.PixelRepresentation else stored


def _put_frame(dataset: Dataset, frame: bytes, syntax: UID) -> None:
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


def _frame(pixels: StoredImage, bits_stored: int, syntax: PhantomSyntax) -> bytes:
    """One encoded frame of a (rows, columns) image."""
    # Encoders are imported where they are used: a missing codec is for `edge-triage doctor` to
    # name, and it could not, if every command broke at its import.
    if syntax is PhantomSyntax.JPEG_LOSSLESS:
        return encode_jpeg_lossless(pixels)
    rows, columns = pixels.shape
    layout = {"rows": rows, "columns": columns, "samples_per_pixel": 1}
    if syntax is PhantomSyntax.JPEG2000:
        from openjpeg.utils import encode_array  # noqa: PLC0415 - see above

        return encode_array(pixels, bits_stored=bits_stored, photometric_interpretation=2)
    if syntax is PhantomSyntax.RLE:
        from rle.utils import encode_pixel_data  # noqa: PLC0415 - see above

        return bytes(encode_pixel_data(pixels.tobytes(), None, "<", **layout, bits_allocated=16))
    import jpeg_ls  # type: ignore[import-untyped]  # noqa: PLC0415 - see above; it has no stubs

    return bytes(jpeg_ls.encode_pixel_data(pixels.tobytes(), **layout, bits_stored=bits_stored))
