"""Padding as one value and as a range (PS3.3 C.7.5.1.1.2), against comparisons in wide integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.padding import PaddingRange
from engines.preprocessing.rescaling import invert_monochrome1, rescale, rescale_in_place
from engines.preprocessing.values import StoredImage
from engines.steps import InvertMonochrome1, Rescale

AIR = Rescale(step="rescale", padding=-1000.0)
DTYPES = (np.int16, np.uint16, np.int8, np.uint8)


def stored(pixels: Any, dtype: Any = np.int16, **fields: Any) -> StoredImage:
    array = np.array(pixels, dtype=dtype)
    known = {"bits_stored": array.dtype.itemsize * 8, "is_signed": array.dtype.kind == "i"}
    return StoredImage(pixels=array, **{**known, **fields})


@pytest.mark.parametrize("ends", [(-2000, -1990), (-1990, -2000)])
def test_both_ends_of_the_range_are_padding_whichever_is_the_higher(ends: tuple[int, int]) -> None:
    image = stored([[-2001, -2000, -1995, -1990, -1989]], padding=ends[0], padding_limit=ends[1])
    assert rescale(image, AIR).values.tolist() == [[-2001, -1000, -1000, -1000, -1989]]


def test_a_range_of_one_value_is_that_value() -> None:
    image = stored([[4, 5, 6]], np.uint16, padding=5, padding_limit=5)
    assert rescale(image, AIR).values.tolist() == [[4, -1000, 6]]


def test_a_limit_without_a_value_means_nothing() -> None:
    image = stored([[0, 5, 10]], np.uint16, padding_limit=10)
    assert rescale(image, AIR).values.tolist() == [[0, 5, 10]]


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize("ends", [(-2000, -1990), (63536, 63546), (-2000, 63546)])
def test_the_range_is_found_even_when_signs_were_confused(
    dtype: Any, ends: tuple[int, int]
) -> None:
    written = np.array([63536, 63540, 63546, 63547, 1024], dtype=np.uint16)
    image = stored([written.view(dtype)], dtype, padding=ends[0], padding_limit=ends[1])
    is_padding = rescale(image, AIR).values == -1000.0
    assert is_padding.tolist() == [[True, True, True, False, False]]


def test_the_range_is_one_of_stored_values_not_of_rescaled_ones() -> None:
    image = stored([[10, 20, 30]], padding=10, padding_limit=20, slope=-2.0, intercept=5.0)
    assert rescale(image, AIR).values.tolist() == [[-1000, -1000, -55]]


def test_a_range_keeps_its_value_when_a_picture_is_turned_over() -> None:
    pixels = [[255, 250, 249, 0]]
    image = stored(pixels, np.uint8, padding=255, padding_limit=250, is_monochrome1=True)
    turned = invert_monochrome1(rescale(image, AIR), InvertMonochrome1(step="invert_monochrome1"))
    assert turned.values.tolist() == [[-1000, -1000, 6, 255]]


def test_a_range_is_replaced_in_the_same_memory_too() -> None:
    image = stored([[-2000, -1990, 7]], padding=-2000, padding_limit=-1990, intercept=-1024.0)
    values = rescale_in_place(image, AIR)
    assert values is not None
    assert values.tolist() == [[-1000, -1000, -1017]]


@pytest.mark.parametrize(
    ("dtype", "bits", "ends"),
    [
        (np.uint16, 12, (0, 4095)),
        (np.uint16, 12, (65535, 0)),
        (np.int16, 12, (-2048, 2047)),
        (np.uint8, 8, (0, 255)),
    ],
)
def test_a_range_that_leaves_nothing_is_refused_and_never_an_empty_image(
    dtype: Any, bits: int, ends: tuple[int, int]
) -> None:
    image = stored([[0, 1]], dtype, bits_stored=bits, padding=ends[0], padding_limit=ends[1])
    with pytest.raises(UnfitImagesError, match="leaves no value") as caught:
        rescale(image, AIR)
    assert caught.value.fault is ImageFault.PIXEL_FORMAT


@given(
    st.sampled_from(DTYPES),
    st.integers(-(1 << 15), (1 << 16) - 1),
    st.none() | st.integers(-(1 << 15), (1 << 16) - 1),
    st.randoms(use_true_random=False),
)
def test_every_value_of_the_type_is_told_apart_as_wide_integers_tell_it(
    dtype: Any, value: int, limit: int | None, random: Any
) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    pixels = np.array(random.choices(range(low, high + 1), k=60), dtype=dtype)
    ends = np.array([value, value if limit is None else limit]).astype(dtype).astype(np.int64)
    pixels[:2] = ends
    wide = pixels.astype(np.int64)
    found = PaddingRange.of(value, limit, pixels).mask(pixels)
    np.testing.assert_array_equal(found, (wide >= ends.min()) & (wide <= ends.max()))
