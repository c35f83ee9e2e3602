"""Between the headers of the node and the preprocessing of the engines' side.

The arithmetic is in ``engines.preprocessing``; here an instance's header says what its pixels mean
and where they lie, and what the steps cannot use becomes a reason that a reader understands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.errors import PreprocessError
from edge_runtime.pipeline.geometry import plane_of, position_along_normal
from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.running import prepare
from engines.preprocessing.values import Picture, StoredImage, StoredPixels, Turn
from engines.steps import PreprocessStep

REASON_OF_FAULT: Mapping[ImageFault, ReasonCode] = MappingProxyType(
    {
        ImageFault.NO_IMAGES: ReasonCode.NO_IMAGES,
        ImageFault.PIXEL_FORMAT: ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED,
        ImageFault.GEOMETRY_MISSING: ReasonCode.GEOMETRY_MISSING,
        ImageFault.DUPLICATE_POSITIONS: ReasonCode.DUPLICATE_POSITIONS,
        ImageFault.INCONSISTENT: ReasonCode.INCONSISTENT_IMAGES,
        ImageFault.TOO_LARGE: ReasonCode.TOO_MANY_IMAGES,
        ImageFault.NO_FOREGROUND: ReasonCode.NOTHING_VISIBLE,
    }
)


@contextlib.contextmanager
def reasons_told() -> Iterator[None]:
    """Translate what the steps cannot use into the reason for which a study is not analysed.

    Raises:
        PreprocessError: In place of ``UnfitImagesError``.
    """
    try:
        yield
    except UnfitImagesError as error:
        raise PreprocessError(REASON_OF_FAULT[error.fault], str(error)) from error


def stored_image(pixels: StoredPixels, header: InstanceHeader) -> StoredImage:
    """Put together what the steps need to know of one instance.

    Args:
        pixels: (rows, columns) stored values, as ``decode.read_pixels`` returns them.
        header: of the same instance.

    Raises:
        PreprocessError: pixels and header contradict each other.
    """
    if pixels.shape != (header.rows, header.columns):
        raise PreprocessError(
            ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED, "pixel array and Rows, Columns differ"
        )
    plane = None if header.image_orientation is None else plane_of(header.image_orientation)
    return StoredImage(
        pixels=pixels,
        slope=1.0 if header.rescale_slope is None else header.rescale_slope,
        intercept=0.0 if header.rescale_intercept is None else header.rescale_intercept,
        padding=header.pixel_padding_value,
        padding_limit=header.pixel_padding_range_limit,
        bits_stored=header.bits_stored or pixels.dtype.itemsize * 8,
        is_signed=header.pixel_representation == 1,
        is_monochrome1=header.photometric_interpretation == "MONOCHROME1",
        spacing_mm=header.pixel_spacing_mm,
        turn=None
        if plane is None
        else Turn(
            transpose=plane.transpose,
            flip_rows=plane.flip_rows,
            flip_columns=plane.flip_columns,
        ),
        position_mm=position_along_normal(header),
        thickness_mm=header.slice_thickness_mm,
    )


def prepare_image(
    pixels: StoredPixels, header: InstanceHeader, steps: Sequence[PreprocessStep]
) -> Picture:
    """Do everything that needs one image only, so that it runs while images arrive.

    Raises:
        PreprocessError: The steps cannot use the image.
    """
    with reasons_told():
        return prepare(stored_image(pixels, header), steps)
