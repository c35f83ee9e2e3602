"""From stored pixels to the model's input: the steps of a package, carried out.

``prepare`` does what needs one image only, so that it runs while images arrive. ``assemble`` does
the rest for a whole series; ``plan_items``, ``average_item`` and ``items_input`` do the same for a
few items, where ``engines.steps.can_stream`` says that nothing more is needed.

A new step is a class of the schema (``engines.steps``), a function, and a row in a table here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from engines.errors import EngineMisuseError, ImageFault, UnfitImagesError
from engines.fields import ClosedModel
from engines.package import Layout
from engines.preprocessing import channels, collecting, cropping, grids, intensity
from engines.preprocessing.collecting import Item, average_item, check_alike, order_pictures
from engines.preprocessing.orientation import canonical_orientation
from engines.preprocessing.rescaling import invert_monochrome1, rescale
from engines.preprocessing.values import Float32, Picture, Stack, StoredImage
from engines.steps import (
    AverageSlabs,
    CanonicalOrientation,
    CropOrPad,
    CropToForeground,
    EachImage,
    InvertMonochrome1,
    Letterbox,
    Neighbours,
    Part,
    PercentileNormalise,
    PreprocessStep,
    RepeatChannels,
    ResampleInPlane,
    ResampleStack,
    Rescale,
    Resize,
    ScaleRange,
    StackSlices,
    Standardise,
    WindowChannels,
    ZscoreNormalise,
    parts_of,
)

StoredRow = Callable[..., Picture]
ImageRow = Callable[[Picture, Any], Picture]
CollectRow = Callable[[Sequence[float | None], Sequence[float | None], Any], tuple[Item, ...]]
StackRow = Callable[[Stack, Any], Stack]
ChannelsRow = Callable[[Float32, Any], Float32]

STORED: Mapping[type[ClosedModel], StoredRow] = MappingProxyType({Rescale: rescale})
IMAGE: Mapping[type[ClosedModel], ImageRow] = MappingProxyType(
    {
        InvertMonochrome1: invert_monochrome1,
        CanonicalOrientation: canonical_orientation,
        ResampleInPlane: grids.resample_in_plane,
        Resize: grids.resize,
        Letterbox: grids.letterbox,
        CropToForeground: cropping.crop_picture_to_foreground,
        CropOrPad: cropping.crop_or_pad_picture,
        PercentileNormalise: intensity.normalise_picture_by_percentiles,
        ZscoreNormalise: intensity.normalise_picture_by_zscore,
        ScaleRange: intensity.scale_picture,
    }
)
COLLECT: Mapping[type[ClosedModel], CollectRow] = MappingProxyType(
    {
        EachImage: collecting.each_image,
        StackSlices: collecting.stack_slices,
        AverageSlabs: collecting.average_slabs,
    }
)
STACK: Mapping[type[ClosedModel], StackRow] = MappingProxyType(
    {
        CropToForeground: cropping.crop_stack_to_foreground,
        CropOrPad: cropping.crop_or_pad_stack,
        PercentileNormalise: intensity.normalise_stack_by_percentiles,
        ZscoreNormalise: intensity.normalise_stack_by_zscore,
        ScaleRange: intensity.scale_stack,
        ResampleStack: grids.resample_stack,
    }
)
CHANNELS: Mapping[type[ClosedModel], ChannelsRow] = MappingProxyType(
    {
        WindowChannels: channels.window_channels,
        RepeatChannels: channels.repeat_channels,
        Standardise: channels.standardise,
        Neighbours: channels.neighbours,
    }
)


_NOTHING: Float32 = np.empty((0, 0), dtype=np.float32)


def prepare(image: StoredImage, steps: Sequence[PreprocessStep]) -> Picture:
    """Everything that needs one image only: rescale, and the steps before the images are collected.

    Args:
        image: one frame.
        steps: all steps of the package.

    Returns:
        The picture, contiguous, in memory of its own.

    Raises:
        UnfitImagesError: no step can make a picture of this image.
    """
    parts = parts_of(steps)
    stored = parts[Part.STORED][0]
    picture = STORED[type(stored)](image, stored, minus=fill_ahead(parts[Part.IMAGE]))
    for step in parts[Part.IMAGE]:
        picture = IMAGE[type(step)](picture, step)
    return replace(picture, values=_owned(picture.values), padding=None)


def plan_items(
    positions_mm: Sequence[float | None],
    thicknesses_mm: Sequence[float | None],
    collect_step: PreprocessStep,
) -> tuple[Item, ...]:
    """Which images of the ordered series make which item.

    Args:
        positions_mm: along the normal, ascending (``order_pictures``).
        thicknesses_mm: of the same images, as their headers say.
        collect_step: the package's step that collects.

    Returns:
        The items, ordered as their members are.

    Raises:
        UnfitImagesError: there is no such order, or there are too many items.
    """
    return COLLECT[type(collect_step)](positions_mm, thicknesses_mm, collect_step)


def stack_of(pictures: Sequence[Picture], steps: Sequence[PreprocessStep]) -> Stack:
    """Collects the pictures of a whole series, in whichever order they are given.

    Raises:
        UnfitImagesError: the pictures make no stack.
    """
    ordered = [pictures[index] for index in order_pictures(pictures)]
    items = plan_items(
        [picture.position_mm for picture in ordered],
        [picture.thickness_mm for picture in ordered],
        parts_of(steps)[Part.COLLECT][0],
    )
    return stack_in_order(ordered, items, steps)


def stack_in_order(
    pictures: Iterable[Picture], items: Sequence[Item], steps: Sequence[PreprocessStep]
) -> Stack:
    """The same of pictures that come one after the other, along the normal.

    A picture that is made when it is asked for, and held by nobody else, takes memory for as long
    as items are made of it: a volume beside all of its pictures would be twice as large.

    Args:
        pictures: of ``prepare``, those that the items were planned for, in that order.
        items: of ``plan_items``.
        steps: all steps of the package.

    Raises:
        UnfitImagesError: the pictures make no stack.
    """
    values: Float32 | None = None
    seen: list[Picture] = []
    held: dict[int, Picture] = {}
    done = 0
    for place, picture in enumerate(pictures):
        if values is None:
            values = np.empty((len(items), *picture.values.shape), dtype=np.float32)
        if picture.values.shape != values.shape[1:]:
            raise UnfitImagesError(ImageFault.INCONSISTENT, "images of one stack differ in size")
        seen.append(replace(picture, values=_NOTHING))
        held[place] = picture
        while done < len(items) and items[done].members[-1] <= place:
            values[done] = average_item(held, items[done])
            done += 1
        needed = items[done].members[0] if done < len(items) else len(seen)
        held = {each: kept for each, kept in held.items() if each >= needed}
    if values is None:
        raise UnfitImagesError(ImageFault.NO_IMAGES, "there is no image")
    return Stack(values=values, spacing_mm=_spacing_of(seen, parts_of(steps)[Part.COLLECT][0]))


def finish(stack: Stack, steps: Sequence[PreprocessStep]) -> Stack:
    """Carries out the steps of the stack.

    Raises:
        UnfitImagesError: the stack has no known spacing, no foreground, or is too large.
    """
    for step in parts_of(steps)[Part.STACK]:
        stack = STACK[type(step)](stack, step)
    return stack


def channels_of(values: Float32, steps: Sequence[PreprocessStep]) -> Float32:
    """Carries out the steps of channels: (N, H, W) to (N, C, H, W)."""
    made = values[:, np.newaxis]
    for step in parts_of(steps)[Part.CHANNELS]:
        made = CHANNELS[type(step)](made, step)
    return made


def assemble(
    pictures: Sequence[Picture], steps: Sequence[PreprocessStep], layout: Layout
) -> Float32:
    """Makes the model's input of all prepared pictures of a series.

    Args:
        pictures: of ``prepare``, in any order where they have positions.
        steps: the same as given to ``prepare``.
        layout: of the model's input.

    Returns:
        Contiguous, with the axes of the layout; N or D runs along the normal (axial: from inferior
        to superior).

    Raises:
        UnfitImagesError: the pictures make no input.
    """
    return _input_of(stack_of(pictures, steps), steps, layout)


def assemble_in_order(
    pictures: Iterable[Picture],
    items: Sequence[Item],
    steps: Sequence[PreprocessStep],
    layout: Layout,
) -> Float32:
    """The same of pictures that come in the order of ``plan_items``; see ``stack_in_order``.

    Raises:
        UnfitImagesError: the pictures make no input.
    """
    return _input_of(stack_in_order(pictures, items, steps), steps, layout)


def _input_of(stack: Stack, steps: Sequence[PreprocessStep], layout: Layout) -> Float32:
    return _laid_out(channels_of(finish(stack, steps).values, steps), layout)


def neighbour_radius(steps: Sequence[PreprocessStep]) -> int:
    """How many items on each side an item's input rests on."""
    found = parts_of(steps)[Part.CHANNELS]
    return sum(step.radius for step in found if isinstance(step, Neighbours))


def items_input(
    values: Sequence[Float32], places: range, steps: Sequence[PreprocessStep], layout: Layout
) -> Float32:
    """The model's input of some items in a row, the same as theirs in ``assemble``.

    Args:
        values: ``average_item`` of the items and the ``neighbour_radius`` neighbours on each side,
            in order; at the ends of the series only those that there are.
        places: of the items in ``values``.
        steps: of a package that ``can_stream``.
        layout: of the model's input, one in which items stand for themselves.

    Returns:
        Contiguous, with the axes of the layout, N being the number of places.

    Raises:
        EngineMisuseError: the layout takes the whole stack as one item.
    """
    if layout.is_volume:
        raise EngineMisuseError(f"layout {layout.value} has no items")
    made = np.stack(values)[:, np.newaxis]
    reach = neighbour_radius(steps)
    for step in parts_of(steps)[Part.CHANNELS]:
        if isinstance(step, Neighbours):
            reach -= step.radius
            wanted = range(max(places.start - reach, 0), min(places.stop + reach, len(made)))
            made = channels.neighbours_of(made, step, wanted)
            places = range(places.start - wanted.start, places.stop - wanted.start)
        else:
            made = CHANNELS[type(step)](made, step)
    return _laid_out(made[places.start : places.stop], layout)


def fill_ahead(steps: Sequence[PreprocessStep]) -> float:
    """What the next grid fills with, if nothing before it looks at values.

    The rescale takes it off at no cost; a grid of the nearest pixels does not ask for it.
    """
    for step in steps:
        if isinstance(step, ResampleInPlane) and step.method != "nearest":
            return step.fill
        if not isinstance(step, CanonicalOrientation):
            break
    return 0.0


def _owned(values: Float32) -> Float32:
    """Contiguous, and not a part of something larger, which it would keep in memory."""
    whole = values if values.base is None else values.base
    if values.flags.c_contiguous and whole.nbytes == values.nbytes:
        return values
    return values.copy(order="C")


def _spacing_of(
    ordered: Sequence[Picture], collect: PreprocessStep
) -> tuple[float, float, float] | None:
    """Between slices, rows, columns; None where images stand for themselves."""
    if isinstance(collect, EachImage):
        return None
    for one, other in pairwise(ordered):
        check_alike(one, other)
    between = _between_slices(ordered, collect)
    in_plane = ordered[0].spacing_mm
    return None if between is None or in_plane is None else (between, *in_plane)


def _between_slices(ordered: Sequence[Picture], collect: PreprocessStep) -> float | None:
    if isinstance(collect, AverageSlabs):
        return collect.thickness_mm
    first, last = ordered[0].position_mm, ordered[-1].position_mm
    if len(ordered) == 1 or first is None or last is None:
        return ordered[0].thickness_mm
    return (last - first) / (len(ordered) - 1)


def _laid_out(values: Float32, layout: Layout) -> Float32:
    """From (N, C, H, W)."""
    if layout in (Layout.NHWC, Layout.NDHWC):
        values = values.transpose(0, 2, 3, 1)
    elif layout is Layout.NCDHW:
        values = values.transpose(1, 0, 2, 3)
    return np.ascontiguousarray(values[np.newaxis] if layout.is_volume else values)
