"""Stored values become HU, or what else the rescale gives; dark and bright change places."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.padding import PaddingRange
from engines.preprocessing.values import Float32, Int16, Mask, Picture, StoredImage, StoredPixels
from engines.steps import InvertMonochrome1, Rescale

# Every integer up to here has a float32 of its own.
EXACT_IN_FLOAT32 = 1 << 24
LEAST_INT16, LARGEST_INT16 = -(1 << 15), (1 << 15) - 1
# Larger results are no measurement, and their squares would leave float32.
LARGEST_VALUE = 1e15
# mm between pixels; anything else is a mistake of the writer.
USABLE_SPACING_MM = (1e-6, 1e4)
# mm from the origin: 1 km is in no room.
LARGEST_POSITION_MM = 1e6


def rescale(image: StoredImage, step: Rescale, *, minus: float = 0.0) -> Picture:
    """Stored values times slope plus intercept, exact to float32; padding as the step says.

    Spacing and position that cannot be are left out, as if the header had none.

    Args:
        image: one frame.
        step: what padding becomes.
        minus: taken from every value (``Picture.minus``), free of cost here.

    Raises:
        UnfitImagesError: PIXEL_FORMAT: pixels and header contradict each other.
    """
    extremes = extremes_of(image)
    values = _rescaled(image.pixels, image.slope, image.intercept - minus)
    padding = _padding(image)
    if padding is not None:
        np.copyto(values, np.float32(step.padding - minus), where=padding)
    return Picture(
        values=values,
        minus=minus,
        extremes=extremes,
        is_monochrome1=image.is_monochrome1,
        padding=padding if image.is_monochrome1 else None,
        spacing_mm=usable_spacing(image.spacing_mm),
        turn=image.turn,
        position_mm=usable_position(image.position_mm),
        thickness_mm=image.thickness_mm,
    )


def rescale_in_place(image: StoredImage, step: Rescale) -> Int16 | None:
    """The same in the memory of the stored values, where all results are whole and fit int16.

    So it is for nearly every CT. Half the memory of float32, and none that is new.

    Args:
        image: one frame of 16-bit values, which are overwritten.
        step: what padding becomes.

    Returns:
        (rows, columns) of the same memory; None, and nothing changed, where float32 is needed.

    Raises:
        UnfitImagesError: PIXEL_FORMAT: pixels and header contradict each other.
    """
    extremes = extremes_of(image)
    factors = (image.slope, image.intercept, step.padding)
    if image.pixels.dtype.itemsize != 2 or not all(map(float.is_integer, factors)):  # noqa: PLR2004 - bytes
        return None
    padding = _padding(image)
    if not (_fits_int16(step.padding) and _results_fit(image, extremes, padding)):
        return None
    # Whatever overflows on the way comes back, as the results fit.
    values = image.pixels.view(np.uint16)
    if image.slope != 1.0:
        np.multiply(values, _modulo(image.slope), out=values)
    if image.intercept != 0.0:
        np.add(values, _modulo(image.intercept), out=values)
    if padding is not None:
        np.copyto(values, _modulo(step.padding), where=padding)
    return values.view(np.int16)


def _results_fit(image: StoredImage, extremes: tuple[float, float], padding: Mask | None) -> bool:
    """By what BitsStored can express, else by what the image has."""
    if all(map(_fits_int16, extremes)):
        return True
    seen = image.pixels if padding is None else image.pixels[~padding]
    ends = (seen.min(initial=0), seen.max(initial=0))
    return all(_fits_int16(image.slope * float(end) + image.intercept) for end in ends)


def _fits_int16(value: float) -> bool:
    return LEAST_INT16 <= value <= LARGEST_INT16


def _modulo(value: float) -> np.uint16:
    return np.uint16(int(value) & 0xFFFF)


def invert_monochrome1(picture: Picture, _step: InvertMonochrome1) -> Picture:
    """Turns a MONOCHROME1 picture over between the lowest and highest value; padding stays."""
    if not picture.is_monochrome1:
        return picture
    values = np.subtract(np.float32(sum(picture.extremes)), picture.values)
    if picture.padding is not None:
        np.copyto(values, picture.values, where=picture.padding)
    return replace(picture, values=values, is_monochrome1=False, padding=None)


def extremes_of(image: StoredImage) -> tuple[float, float]:
    """Return the lowest and highest value that the stored bits can express, rescaled.

    Raises:
        UnfitImagesError: PIXEL_FORMAT: pixels and header contradict each other.
    """
    if image.pixels.ndim != 2 or not image.pixels.size:  # noqa: PLR2004 - (rows, columns)
        raise _pixel_format("pixels are not rows and columns")
    if not 1 <= image.bits_stored <= image.pixels.dtype.itemsize * 8:
        raise _pixel_format("BitsStored does not fit the pixels")
    if image.slope == 0 or not (math.isfinite(image.slope) and math.isfinite(image.intercept)):
        raise _pixel_format("RescaleSlope or RescaleIntercept is no usable number")
    ends = sorted(image.slope * value + image.intercept for value in _stored_extremes(image))
    if max(abs(end) for end in ends) > LARGEST_VALUE:
        raise _pixel_format("RescaleSlope or RescaleIntercept is too large")
    return ends[0], ends[1]


def _stored_extremes(image: StoredImage) -> tuple[int, int]:
    lowest = -(1 << image.bits_stored - 1) if image.is_signed else 0
    return lowest, lowest + (1 << image.bits_stored) - 1


def _pixel_format(text: str) -> UnfitImagesError:
    return UnfitImagesError(ImageFault.PIXEL_FORMAT, f"{text}: look at what the device sends")


def is_exact_in_float32(pixels: StoredPixels, slope: float, intercept: float) -> bool:
    """Whether no value of the pixels' type is rounded when it is rescaled in float32."""
    # Both are multiples of 1/parts, and so is every result.
    parts = max(float(number).as_integer_ratio()[1] for number in (slope, intercept))
    largest = 1 << 8 * pixels.dtype.itemsize
    reach = abs(slope) * largest + abs(intercept)
    return parts <= EXACT_IN_FLOAT32 and reach * parts <= EXACT_IN_FLOAT32


def _rescaled(pixels: StoredPixels, slope: float, intercept: float) -> Float32:
    """In float32 where that is exact, as it is for nearly every CT; else by way of float64."""
    if not is_exact_in_float32(pixels, slope, intercept):
        wide = np.multiply(pixels, slope, dtype=np.float64)
        wide += intercept
        return wide.astype(np.float32)
    values = pixels.astype(np.float32)
    if slope != 1.0:
        values *= np.float32(slope)
    if intercept != 0.0:
        values += np.float32(intercept)
    return values


def _padding(image: StoredImage) -> Mask | None:
    padding = padding_range(image)
    return None if padding is None else padding.mask(image.pixels)


def padding_range(image: StoredImage) -> PaddingRange | None:
    """Return which stored values are padding.

    Raises:
        UnfitImagesError: PIXEL_FORMAT: all that the stored bits can express.
    """
    if image.padding is None:
        return None
    padding = PaddingRange.of(image.padding, image.padding_limit, image.pixels)
    lowest, highest = _stored_extremes(image)
    if padding.low <= lowest and highest <= padding.high:
        # Taken at its word, the image would be empty, and nothing in it could be found.
        raise _pixel_format("PixelPaddingRangeLimit leaves no value that is not padding")
    return padding


def usable_spacing(spacing_mm: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the spacing, or None where it is none that can be."""
    low, high = USABLE_SPACING_MM
    if spacing_mm is None or not all(low <= spacing <= high for spacing in spacing_mm):
        return None
    return spacing_mm


def usable_position(position_mm: float | None) -> float | None:
    """A position along the normal, or None where there is none that can be."""
    if position_mm is None or not abs(position_mm) <= LARGEST_POSITION_MM:
        return None
    return position_mm
