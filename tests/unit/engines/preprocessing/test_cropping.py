"""Cropping and padding, against scipy's bounding boxes and SimpleITK's filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage  # type: ignore[import-untyped]  # comes without types
from simulators.reference_images import picture, sitk

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.cropping import (
    crop_or_pad_picture,
    crop_or_pad_stack,
    crop_picture_to_foreground,
    crop_stack_to_foreground,
)
from engines.preprocessing.rescaling import invert_monochrome1
from engines.preprocessing.values import Float32, Stack
from engines.steps import CropOrPad, CropToForeground, InvertMonochrome1


def noise(*shape: int) -> Float32:
    return np.random.default_rng(11).uniform(0, 100, shape).astype(np.float32)


def foreground(margin: int = 0, above: float = 0.0) -> CropToForeground:
    return CropToForeground(step="crop_to_foreground", above=above, margin=margin)


def sized(rows: int, columns: int, slices: int | None = None) -> CropOrPad:
    fields: dict[str, Any] = {"rows": rows, "columns": columns, "slices": slices, "fill": -7.0}
    return CropOrPad(step="crop_or_pad", **fields)


def body(*shape: int) -> Float32:
    """Something above 0 in the middle, in two parts."""
    values = np.full(shape, -50.0, dtype=np.float32)
    values[(slice(3, 5),) * len(shape)] = 10.0
    values[(5,) * (len(shape) - 1) + (6,)] = 20.0
    return values


def test_picture_is_cut_to_scipys_box_of_the_foreground() -> None:
    values = body(9, 12)
    box = scipy.ndimage.find_objects((values > 0).astype(np.int8))[0]
    cut = crop_picture_to_foreground(picture(values), foreground())
    np.testing.assert_array_equal(cut.values, values[box])
    assert cut.values.shape == (3, 4)


def test_stack_is_cut_to_scipys_box_of_the_foreground() -> None:
    values = body(8, 9, 12)
    box = scipy.ndimage.find_objects((values > 0).astype(np.int8))[0]
    stack = Stack(values=values, spacing_mm=(5.0, 0.4, 0.8))
    cut = crop_stack_to_foreground(stack, foreground())
    np.testing.assert_array_equal(cut.values, values[box])
    assert cut.spacing_mm == stack.spacing_mm


def test_margin_ends_at_the_border() -> None:
    values = body(9, 12)
    one = crop_picture_to_foreground(picture(values), foreground(margin=1)).values
    np.testing.assert_array_equal(one, values[2:7, 2:8])
    all_of_it = crop_picture_to_foreground(picture(values), foreground(margin=200)).values
    np.testing.assert_array_equal(all_of_it, values)


def test_foreground_at_the_border_is_kept() -> None:
    values = np.zeros((4, 5))
    values[0, 4] = values[3, 0] = 1.0
    assert crop_picture_to_foreground(picture(values), foreground()).values.shape == (4, 5)


def test_padding_is_cut_with_the_picture() -> None:
    values = body(9, 12)
    cut = crop_picture_to_foreground(picture(values, padding=values == 20.0), foreground())
    assert cut.padding is not None
    np.testing.assert_array_equal(cut.padding, cut.values == 20.0)


@pytest.mark.parametrize("above", [20.0, 1e6])
def test_images_without_foreground_are_refused(above: float) -> None:
    with pytest.raises(UnfitImagesError) as caught:
        crop_picture_to_foreground(picture(body(9, 12)), foreground(above=above))
    assert caught.value.fault is ImageFault.NO_FOREGROUND
    with pytest.raises(UnfitImagesError):
        crop_stack_to_foreground(Stack(values=body(9, 9, 9)), foreground(above=above))


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (20, 31), (8, 31), (31, 8)])
@pytest.mark.parametrize("size", [(8, 8), (12, 17), (20, 9)])
def test_picture_is_cut_and_filled_as_simpleitk_does(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    image = sitk.GetImageFromArray(noise(*shape))
    lacks = [max(new - old, 0) for old, new in zip(shape, size, strict=True)]
    spare = [max(old - new, 0) for old, new in zip(shape, size, strict=True)]
    image = sitk.ConstantPad(
        image, [n // 2 for n in lacks[::-1]], [n - n // 2 for n in lacks[::-1]], -7.0
    )
    image = sitk.Crop(image, [n // 2 for n in spare[::-1]], [n - n // 2 for n in spare[::-1]])
    ours = crop_or_pad_picture(picture(noise(*shape), spacing_mm=(0.4, 0.8)), sized(*size))
    np.testing.assert_array_equal(ours.values, sitk.GetArrayFromImage(image))
    assert ours.spacing_mm == (0.4, 0.8)
    assert ours.padding is None


@pytest.mark.parametrize("slices", [None, 3, 5, 12])
def test_stack_keeps_its_middle(slices: int | None) -> None:
    values = noise(5, 10, 12)
    ours = crop_or_pad_stack(Stack(values=values), sized(8, 16, slices)).values
    count = slices or 5
    assert ours.shape == (count, 8, 16)
    middle = ours[count // 2 if count != 12 else 5]
    np.testing.assert_array_equal(middle[:, 2:14], values[2, 1:9])
    assert (ours[..., :2] == -7.0).all()
    if count == 12:
        assert (ours[:3] == -7.0).all()
        assert (ours[8:] == -7.0).all()


@pytest.mark.parametrize("padding", [None, np.eye(9, dtype=np.bool_)])
def test_what_is_filled_is_padding_for_a_later_turning_over(padding: Any) -> None:
    shown = picture(noise(9, 9), extremes=(0, 100), is_monochrome1=True, padding=padding)
    grown = crop_or_pad_picture(shown, sized(11, 8))
    turned = invert_monochrome1(grown, InvertMonochrome1(step="invert_monochrome1")).values
    assert (turned[[0, -1]] == -7.0).all()
    kept = np.zeros((9, 8), dtype=np.bool_) if padding is None else padding[:, :8]
    inside = noise(9, 9)[:, :8]
    np.testing.assert_array_equal(turned[1:10], np.where(kept, inside, np.float32(100) - inside))
