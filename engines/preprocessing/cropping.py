"""Pictures and stacks cut down to what shows the body, or to a size about the middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.values import Float32, Mask, Picture, Stack
from engines.steps import CropOrPad, CropToForeground

Scalar = TypeVar("Scalar", bound=np.generic)


def crop_picture_to_foreground(picture: Picture, step: CropToForeground) -> Picture:
    """Cuts down to the box around everything above the step's value.

    Raises:
        UnfitImagesError: NO_FOREGROUND: nothing lies above it.
    """
    box = _foreground_box(picture.values, step)
    padding = None if picture.padding is None else picture.padding[box]
    return replace(picture, values=picture.values[box], padding=padding)


def crop_stack_to_foreground(stack: Stack, step: CropToForeground) -> Stack:
    """Cuts down to the box around everything above the step's value.

    Raises:
        UnfitImagesError: NO_FOREGROUND: nothing lies above it.
    """
    return replace(stack, values=stack.values[_foreground_box(stack.values, step)])


def crop_or_pad_picture(picture: Picture, step: CropOrPad) -> Picture:
    """Cuts or fills to the step's size; what is filled counts as padding."""
    shape = (step.rows, step.columns)
    return replace(
        picture,
        values=_about_the_middle(picture.values, shape, np.float32(step.fill)),
        padding=_padding_about_the_middle(picture, shape) if picture.is_monochrome1 else None,
    )


def crop_or_pad_stack(stack: Stack, step: CropOrPad) -> Stack:
    """Cuts or fills to the step's size."""
    shape = (step.slices or len(stack.values), step.rows, step.columns)
    values = _about_the_middle(stack.values, shape, np.float32(step.fill))
    return replace(stack, values=values)


def _foreground_box(values: Float32, step: CropToForeground) -> tuple[slice, ...]:
    foreground = values > np.float32(step.above)
    box = []
    for axis, size in enumerate(values.shape):
        others = tuple(other for other in range(values.ndim) if other != axis)
        found = np.flatnonzero(foreground.any(axis=others))
        if not len(found):
            raise UnfitImagesError(
                ImageFault.NO_FOREGROUND,
                "nothing lies above the value to crop by",
            )
        first, last = int(found[0]) - step.margin, int(found[-1]) + step.margin
        box.append(slice(max(first, 0), min(last + 1, size)))
    return tuple(box)


def _padding_about_the_middle(picture: Picture, shape: tuple[int, int]) -> Mask:
    padding = picture.padding
    if padding is None:
        padding = np.zeros(picture.values.shape, dtype=np.bool_)
    return _about_the_middle(padding, shape, np.bool_(True))  # noqa: FBT003 - the value to fill with


def _about_the_middle(
    values: npt.NDArray[Scalar], shape: Sequence[int], fill: Scalar
) -> npt.NDArray[Scalar]:
    """Of an odd number of pixels too much or too few, the odd one is the last."""
    sizes = list(zip(values.shape, shape, strict=True))
    taken = tuple(_middle(old, new) for old, new in sizes)
    if all(new <= old for old, new in sizes):
        return values[taken]
    placed = np.full(shape, fill, dtype=values.dtype)
    placed[tuple(_middle(new, old) for old, new in sizes)] = values[taken]
    return placed


def _middle(size: int, wanted: int) -> slice:
    start = max(size - wanted, 0) // 2
    return slice(start, start + min(size, wanted))
