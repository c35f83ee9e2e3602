"""Slices go to the device as they arrive; what comes out is what NumPy makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulators.fused import FusedKernel, by_numpy, plan_of
from simulators.reference_images import steps_of

from engines.device.contract import Kind
from engines.device.host import HostDevice
from engines.errors import (
    DeviceError,
    EngineMisuseError,
    ImageFault,
    OutOfDeviceMemoryError,
    UnfitImagesError,
)
from engines.kernel.memory import CHUNK
from engines.kernel.staging import SLOTS, FusedStaging, StagedPicture
from engines.package import Layout
from engines.preprocessing.collecting import Item, order_pictures
from engines.preprocessing.running import plan_items
from engines.preprocessing.values import StoredImage, Turn
from engines.runner import ItemRun
from engines.steps import Part, parts_of

RESCALE = {"step": "rescale", "padding": -1000.0}
TURN = {"step": "canonical_orientation"}
# Of the nearest pixels, so that no sum is made in another order.
GRID = {
    "step": "resample_in_plane",
    "rows": 12,
    "columns": 10,
    "pixel_mm": 1.7,
    "fill": -1000.0,
    "method": "nearest",
}
SLABS = {"step": "average_slabs", "thickness_mm": 5.0}
SLICES = {"step": "stack_slices"}
IMAGES = {"step": "each_image", "max_images": 128}
WINDOWS = {
    "step": "window_channels",
    "windows": [{"low": 0.0, "high": 80.0}, {"low": -1000.0, "high": 1400.0}],
}
NEIGHBOURS = {"step": "neighbours", "radius": 2}
STEPS = steps_of(RESCALE, TURN, GRID, SLABS, WINDOWS, NEIGHBOURS)
FOREGROUND = steps_of(
    RESCALE, TURN, GRID, {"step": "zscore_normalise", "foreground_above": 500}, IMAGES
)


def stored(
    z: float | None = None, *, shape: tuple[int, int] = (17, 23), **fields: Any
) -> StoredImage:
    seed = 0 if z is None else int(100 + 10 * z)
    pixels = np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)
    known: dict[str, Any] = {
        "pixels": pixels,
        "is_signed": True,
        "spacing_mm": (0.81, 0.43),
        "position_mm": z,
    }
    return StoredImage(**{**known, **fields})


def ordered(staged: Sequence[StagedPicture]) -> list[StagedPicture]:
    return [staged[place] for place in order_pictures([each.picture for each in staged])]


def items_of(staged: Sequence[StagedPicture]) -> tuple[Item, ...]:
    return plan_items(
        [each.picture.position_mm for each in staged],
        [each.picture.thickness_mm for each in staged],
        parts_of(STEPS)[Part.COLLECT][0],
    )


def run_of(
    staged: Sequence[StagedPicture], items: Sequence[Item], places: range
) -> ItemRun[StagedPicture]:
    return ItemRun(pictures=dict(enumerate(staged)), items=items, places=places)


def test_items_made_while_slices_arrive_are_those_of_the_whole(kernel: FusedKernel) -> None:
    images = [stored(2.3 * index) for index in range(14)]
    whole = by_numpy(images, STEPS)
    with kernel.staging(STEPS) as staging:
        staged = [staging.add(image) for image in images]
        items = items_of(staged)
        assert len(items) == len(whole)
        for place in range(len(items)):
            window = items[max(place - 2, 0) : place + 3]
            here = place - max(place - 2, 0)
            made = staging.input_of([run_of(staged, window, range(here, here + 1))])
            np.testing.assert_array_equal(kernel.read(made), whole[place : place + 1])
        several = staging.input_of([run_of(staged, items, range(1, 4))])
        assert several.shape == (3, *whole.shape[1:])
        np.testing.assert_array_equal(kernel.read(several), whole[1:4])


def test_a_slice_that_arrives_late_finds_its_place(kernel: FusedKernel) -> None:
    images = [stored(2.3 * index) for index in (5, 0, 3, 1, 4)]
    late = stored(2.3 * 2)
    with kernel.staging(STEPS) as staging:
        staged = [staging.add(image) for image in images]
        staging.whole_input(staged)
        staged.append(staging.add(late))
        made = staging.whole_input(staged)
        np.testing.assert_array_equal(kernel.read(made), by_numpy([*images, late], STEPS))


def test_more_slices_than_there_is_memory_for_at_first(kernel: FusedKernel) -> None:
    images = [stored(0.7 * index) for index in range(2 * CHUNK + 3)]
    np.testing.assert_array_equal(kernel.assemble(images, STEPS), by_numpy(images, STEPS))


def test_slots_grow_with_the_images_and_are_used_again(kernel: FusedKernel) -> None:
    shapes = [(9, 9), (40, 31), (8, 8), (200, 100), (17, 23), (201, 100), (9, 9), (300, 64)]
    images = [stored(2.0 * place, shape=shape) for place, shape in enumerate(shapes)]
    with kernel.staging(STEPS) as staging:
        staged = [staging.add(image) for image in images]
        np.testing.assert_array_equal(
            kernel.read(staging.whole_input(staged)), by_numpy(images, STEPS)
        )
        assert kernel.device.open_resources()[Kind.PINNED] == SLOTS + 1


@pytest.mark.parametrize("batch_bytes", [1, 3000, 1 << 20])
def test_images_that_are_added_together_are_those_added_one_by_one(
    kernel: FusedKernel, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    monkeypatch.setattr("engines.kernel.staging.BATCH_BYTES", batch_bytes)
    turns = [None, Turn(transpose=True), Turn(flip_rows=True), Turn(transpose=True)]
    shapes = [(9, 40), (40, 9), (17, 23), (64, 64), (8, 8)]
    images = [
        stored(0.7 * place, turn=turns[place % 4], shape=shapes[place % 5], slope=1 + place % 2)
        for place in range(CHUNK + 30)
    ]
    wide = np.full((17, 23), 70_000, dtype=np.int32)
    for place in (3, 4, 50):
        images[place] = replace(images[place], pixels=wide, bits_stored=32)
    expected = by_numpy(images, STEPS)
    with kernel.staging(STEPS) as staging:
        staged = staging.add_all(images)
        np.testing.assert_array_equal(kernel.read(staging.whole_input(staged)), expected)
        staged = (
            *staging.add_all(images[:5]),
            staging.add(images[5]),
            *staging.add_all(images[6:]),
        )
        np.testing.assert_array_equal(kernel.read(staging.whole_input(staged)), expected)


def test_maps_follow_images_that_are_added_together(kernel: FusedKernel) -> None:
    images = [stored(2.0 * place) for place in range(7)]
    with kernel.staging(FOREGROUND) as staging:
        made = staging.whole_input(staging.add_all(images))
        np.testing.assert_allclose(
            kernel.read(made), by_numpy(images, FOREGROUND), rtol=1e-6, atol=1e-6
        )


def test_of_images_that_are_added_together_none_stays_when_one_is_refused(
    kernel: FusedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.kernel.staging.BATCH_BYTES", 3000)
    images = [stored(2.0 * place) for place in range(6)]
    with kernel.staging(STEPS) as staging:
        first = staging.add(images[0])
        with pytest.raises(UnfitImagesError):
            staging.add_all([*images[1:], stored(3.0, slope=0.0)])
        rest = staging.add_all(images[1:])
        np.testing.assert_array_equal(
            kernel.read(staging.whole_input([first, *rest])), by_numpy(images, STEPS)
        )


def test_what_was_wrong_with_an_image_is_not_told_of_the_next_one_in_its_place(
    kernel: FusedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.kernel.staging.BATCH_BYTES", 1)
    dark = stored(1.0, pixels=np.full((17, 23), -900, dtype=np.int16))
    wide = stored(2.0, pixels=np.arange(17 * 23, dtype=np.int32).reshape(17, 23) * 9)
    with kernel.staging(FOREGROUND) as staging:
        for sound in ([stored(0.0), stored(1.0)], [replace(wide, bits_stored=32), stored(3.0)]):
            with pytest.raises(UnfitImagesError):
                staging.add_all([dark, dark, stored(3.0, slope=0.0)])
            made = staging.whole_input(staging.add_all(sound))
            np.testing.assert_allclose(
                kernel.read(made), by_numpy(sound, FOREGROUND), rtol=1e-6, atol=1e-6
            )


def test_no_images_are_no_pictures(kernel: FusedKernel) -> None:
    with kernel.staging(STEPS) as staging:
        assert staging.add_all([]) == ()


def test_pixels_are_read_before_add_returns(kernel: FusedKernel) -> None:
    images = [stored(2.0 * place) for place in range(4)]
    expected = by_numpy(images, STEPS)
    with kernel.staging(STEPS) as staging:
        staged = []
        for image in images:
            staged.append(staging.add(image))
            image.pixels[:] = 0
        np.testing.assert_array_equal(kernel.read(staging.whole_input(staged)), expected)


@pytest.mark.parametrize("steps", [STEPS, FOREGROUND], ids=["slabs", "maps"])
def test_one_staging_serves_one_series_after_the_other(kernel: FusedKernel, steps: Any) -> None:
    with kernel.staging(steps) as staging:
        for count in (9, 2, 70):
            images = [stored(2.0 * place + count) for place in range(count)]
            made = staging.whole_input([staging.add(image) for image in images])
            np.testing.assert_allclose(
                kernel.read(made), by_numpy(images, steps), rtol=1e-6, atol=1e-6
            )


def test_pictures_of_several_series_lie_side_by_side_until_nobody_holds_them(
    kernel: FusedKernel,
) -> None:
    series = [[stored(2.0 * place + 50 * each) for place in range(CHUNK - 9)] for each in range(3)]
    with kernel.staging(STEPS) as staging:
        staged = [[staging.add(image) for image in images] for images in series]
        for images, pictures in zip(series, staged, strict=True):
            np.testing.assert_array_equal(
                kernel.read(staging.whole_input(pictures)), by_numpy(images, STEPS)
            )
        held = kernel.device.open_resources()
        del staged[1], pictures
        # In the memory of the second.
        staged.append([staging.add(image) for image in series[1]])
        assert kernel.device.open_resources() == held
        for images, pictures in zip((series[0], series[2], series[1]), staged, strict=True):
            np.testing.assert_array_equal(
                kernel.read(staging.whole_input(pictures)), by_numpy(images, STEPS)
            )


def test_what_a_long_series_took_is_given_back_before_the_next_one(
    kernel: FusedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [stored(2.0 * place) for place in range(3 * CHUNK)]
    short = [stored(2.0 * place + 1) for place in range(5)]
    with kernel.staging(STEPS) as staging:
        kernel.read(staging.whole_input([staging.add(image) for image in short]))
        usual = kernel.device.open_resources()[Kind.BUFFER]
        for _ in range(2):
            kernel.read(staging.whole_input([staging.add(image) for image in long]))
            assert kernel.device.open_resources()[Kind.BUFFER] == usual + 2
            held = staging.add(short[0])  # kept: it is less than may be
            assert kernel.device.open_resources()[Kind.BUFFER] == usual + 2
            del held
        monkeypatch.setattr("engines.kernel.staging.KEPT_BYTES", 1)
        held = staging.add(short[0])
        assert kernel.device.open_resources()[Kind.BUFFER] == usual - 1  # and no input
        staged = [held, *(staging.add(image) for image in short[1:])]
        np.testing.assert_array_equal(
            kernel.read(staging.whole_input(staged)), by_numpy(short, STEPS)
        )


def test_pictures_of_another_staging_or_of_one_that_was_left_are_a_mistake_of_ours(
    kernel: FusedKernel,
) -> None:
    left = kernel.staging(STEPS)
    with left:
        gone = [left.add(stored(2.0 * place)) for place in range(3)]
    with kernel.staging(STEPS) as staging:
        staged = [staging.add(stored(2.0 * place)) for place in range(3)]
        for others in (gone, [*staged[:2], gone[2]]):
            with pytest.raises(EngineMisuseError):
                staging.whole_input(others)
    del gone  # memory that is gone already


def test_pixels_are_read_to_where_the_device_takes_them_from(kernel: FusedKernel) -> None:
    turns = [None, Turn(transpose=True), Turn(flip_rows=True)]
    shapes = [(17, 23), (40, 9), (17, 23), (9, 9), (64, 64)]
    images = [
        stored(2.0 * place, turn=turns[place % 3], shape=shapes[place % 5]) for place in range(12)
    ]
    images[4] = replace(images[4], pixels=images[4].pixels.view(np.uint16), is_signed=False)
    with kernel.staging(STEPS) as staging:
        staged = []
        for image in images:
            place = staging.place_for(image)
            assert place is not None
            assert (place.shape, place.dtype) == (image.pixels.shape, image.pixels.dtype)
            place[...] = image.pixels
            staged.append(staging.add(replace(image, pixels=place)))
        made = kernel.read(staging.whole_input(staged))
    np.testing.assert_array_equal(made, by_numpy(images, STEPS))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_pixels_of_other_sizes_are_read_elsewhere(kernel: FusedKernel, dtype: Any) -> None:
    with kernel.staging(STEPS) as staging:
        assert staging.place_for(stored(pixels=np.zeros((5, 5), dtype=dtype))) is None


def test_a_place_that_nothing_was_read_to_is_given_to_the_next_image(kernel: FusedKernel) -> None:
    images = [stored(2.0 * place) for place in range(5)]
    with kernel.staging(STEPS) as staging:
        staged = []
        for image in images:
            for _ in range(SLOTS + 1):
                place = staging.place_for(image)
                assert place is not None
                place[...] = -3
            staged.append(staging.add(image))
        made = kernel.read(staging.whole_input(staged))
    np.testing.assert_array_equal(made, by_numpy(images, STEPS))


def test_items_of_several_series_make_one_input(kernel: FusedKernel) -> None:
    series = [[stored(2.3 * place + 100 * each) for place in range(14)] for each in range(3)]
    places = [range(1, 4), range(6), range(5, 6)]
    with kernel.staging(STEPS) as staging:
        runs = []
        for images, wanted in zip(series, places, strict=True):
            staged = [staging.add(image) for image in images]
            pictures = {100 + place: each for place, each in enumerate(staged)}
            items = [
                replace(item, members=tuple(100 + member for member in item.members))
                for item in items_of(staged)
            ]
            runs.append(ItemRun(pictures=pictures, items=items, places=wanted))
        made = kernel.read(staging.input_of(runs))
    expected = [
        by_numpy(images, STEPS)[wanted.start : wanted.stop]
        for images, wanted in zip(series, places, strict=True)
    ]
    np.testing.assert_array_equal(made, np.concatenate(expected))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_pixels_that_the_kernel_does_not_read_go_the_other_way(
    kernel: FusedKernel, dtype: Any
) -> None:
    images = [stored(2.0 * place) for place in range(5)]
    wide = stored(pixels=np.full((17, 23), 70_000, dtype=dtype), position_mm=4.5, bits_stored=32)
    images[2] = replace(wide, is_signed=dtype is np.int32)
    np.testing.assert_array_equal(kernel.assemble(images, STEPS), by_numpy(images, STEPS))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"spacing_mm": None}, ImageFault.GEOMETRY_MISSING),
        ({"slope": float("nan")}, ImageFault.PIXEL_FORMAT),
        ({"pixels": np.zeros((4, 4, 3), dtype=np.int16)}, ImageFault.PIXEL_FORMAT),
        ({"spacing_mm": None, "pixels": np.zeros((4, 4), np.int32)}, ImageFault.GEOMETRY_MISSING),
    ],
)
def test_an_image_that_is_refused_leaves_the_series_as_it_was(
    kernel: FusedKernel, changes: dict[str, Any], fault: ImageFault
) -> None:
    images = [stored(2.0 * place) for place in range(4)]
    with kernel.staging(STEPS) as staging:
        staged = [staging.add(image) for image in images[:2]]
        with pytest.raises(UnfitImagesError) as caught:
            staging.add(stored(3.0, **changes))
        assert caught.value.fault is fault
        staged += [staging.add(image) for image in images[2:]]
        np.testing.assert_array_equal(
            kernel.read(staging.whole_input(staged)), by_numpy(images, STEPS)
        )


RESIZE = {"step": "resize", "rows": 8, "columns": 8}


@pytest.mark.parametrize("collect", [SLICES, SLABS])
@pytest.mark.parametrize(
    ("images", "fault"),
    [
        ([stored(0.0), stored(2.0), stored(2.0)], ImageFault.DUPLICATE_POSITIONS),
        ([stored(0.0), stored(), stored(2.0)], ImageFault.GEOMETRY_MISSING),
        ([], ImageFault.NO_IMAGES),
        (
            [stored(0.0), stored(2.0, spacing_mm=(0.81, 0.44)), stored(4.0)],
            ImageFault.INCONSISTENT,
        ),
    ],
)
def test_series_that_make_no_stack_are_refused_as_by_numpy(
    kernel: FusedKernel, images: list[StoredImage], collect: dict[str, Any], fault: ImageFault
) -> None:
    steps = steps_of(RESCALE, RESIZE, collect)
    for make in (by_numpy, kernel.assemble):
        with pytest.raises(UnfitImagesError) as caught:
            make(images, steps)
        assert caught.value.fault is fault


def test_missing_slice_makes_no_volume_in_silence(kernel: FusedKernel) -> None:
    images = [stored(z) for z in (0.0, 2.0, 4.0, 8.0, 10.0)]
    with pytest.raises(UnfitImagesError) as caught:
        kernel.assemble(images, steps_of(RESCALE, GRID, SLICES))
    assert caught.value.fault is ImageFault.INCONSISTENT


def test_members_of_one_item_must_be_alike(kernel: FusedKernel) -> None:
    steps = steps_of(RESCALE, {"step": "resize", "rows": 8, "columns": 8}, SLABS)
    with kernel.staging(steps) as staging:
        staged = [staging.add(stored(0.0)), staging.add(stored(1.0, spacing_mm=(0.3, 0.3)))]
        both = Item(index=0, members=(0, 1), weights=(0.5, 0.5))
        with pytest.raises(UnfitImagesError) as caught:
            staging.input_of([run_of(staged, [both], range(1))])
        assert caught.value.fault is ImageFault.INCONSISTENT


def test_a_picture_without_foreground_is_told_by_who_makes_the_input(kernel: FusedKernel) -> None:
    dark = stored(1.0, pixels=np.full((17, 23), -900, dtype=np.int16))
    with kernel.staging(FOREGROUND) as staging:
        staged = [staging.add(image) for image in (stored(0.0), dark, stored(2.0))]
        with pytest.raises(UnfitImagesError) as caught:
            staging.whole_input(staged)
        assert caught.value.fault is ImageFault.NO_FOREGROUND
        # The others are sound.
        made = staging.whole_input([staged[0], staged[2]])
        np.testing.assert_allclose(
            kernel.read(made),
            by_numpy([stored(0.0), stored(2.0)], FOREGROUND),
            rtol=1e-6,
            atol=1e-6,
        )
        staging.whole_input([staging.add(stored(0.0)), staging.add(stored(2.0))])


def test_some_items_of_a_volume_are_a_mistake_of_ours(kernel: FusedKernel) -> None:
    with kernel.staging(STEPS, Layout.NCDHW) as staging:
        staged = [staging.add(stored(5.0 * place)) for place in range(4)]
        with pytest.raises(EngineMisuseError):
            staging.input_of([run_of(staged, items_of(staged), range(1))])


def test_series_are_ordered_by_whoever_asks_for_items(kernel: FusedKernel) -> None:
    images = [stored(5.0 * place) for place in (2, 0, 1)]
    with kernel.staging(STEPS) as staging:
        staged = ordered([staging.add(image) for image in images])
        items = items_of(staged)
        made = staging.input_of([run_of(staged, items, range(len(items)))])
        np.testing.assert_array_equal(kernel.read(made), by_numpy(images, STEPS))


@pytest.mark.parametrize("total_bytes", [1, 1000, 30_000, 33_000, 34_000])
def test_too_little_memory_is_named_and_nothing_stays_open(
    host_image: bytes, total_bytes: int
) -> None:
    with HostDevice(total_bytes=total_bytes) as device:
        with (
            pytest.raises(OutOfDeviceMemoryError),
            FusedStaging(device, plan_of(FOREGROUND), host_image) as staging,
        ):
            staging.whole_input([staging.add(stored(5.0 * place)) for place in range(4)])
        assert not any(device.open_resources().values())


def test_kernels_that_cannot_be_loaded_leave_nothing_open() -> None:
    with HostDevice() as device:
        staging = FusedStaging(device, plan_of(STEPS), b"no shared object")
        with pytest.raises(DeviceError):
            staging.__enter__()
        assert not any(device.open_resources().values())
