"""Whole lists of steps, from stored pixels to the model's input."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulators.reference_images import steps_of

from engines.errors import EngineMisuseError, ImageFault, UnfitImagesError
from engines.package import Layout
from engines.preprocessing import running
from engines.preprocessing.collecting import average_item
from engines.preprocessing.running import (
    assemble,
    assemble_in_order,
    channels_of,
    finish,
    items_input,
    neighbour_radius,
    plan_items,
    prepare,
    stack_of,
)
from engines.preprocessing.values import Picture, StoredImage, Turn
from engines.steps import FREE, PARTS, Part, PreprocessStep, can_stream, parts_of, prepared_shape

Steps = Sequence[PreprocessStep]
RESCALE = {"step": "rescale", "padding": -1000.0}
TURN = {"step": "canonical_orientation"}
GRID = {
    "step": "resample_in_plane",
    "rows": 12,
    "columns": 10,
    "pixel_mm": 1.7,
    "fill": -1000.0,
}
SLABS = {"step": "average_slabs", "thickness_mm": 5.0}
SLICES = {"step": "stack_slices"}
IMAGES = {"step": "each_image"}
WINDOWS = {
    "step": "window_channels",
    "windows": [{"low": 0.0, "high": 80.0}, {"low": -1000.0, "high": 1400.0}],
}
NEIGHBOURS = {"step": "neighbours", "radius": 1}


def stored(z: float | None = None, *, seed: int = 0, **fields: Any) -> StoredImage:
    pixels = np.random.default_rng(seed).integers(-100, 1500, (17, 23)).astype(np.int16)
    known: dict[str, Any] = {
        "pixels": pixels,
        "is_signed": True,
        "spacing_mm": (0.81, 0.43),
        "position_mm": z,
        **fields,
    }
    return StoredImage(**known)


def series(positions: Sequence[float | None], **fields: Any) -> list[StoredImage]:
    return [stored(z, seed=index, **fields) for index, z in enumerate(positions)]


def prepared(images: Sequence[StoredImage], steps: Steps) -> list[Picture]:
    return [prepare(image, steps) for image in images]


@pytest.mark.parametrize(
    ("part", "table"),
    [
        (Part.STORED, running.STORED),
        (Part.IMAGE, running.IMAGE),
        (Part.COLLECT, running.COLLECT),
        (Part.STACK, running.STACK),
        (Part.CHANNELS, running.CHANNELS),
    ],
)
def test_every_step_of_the_schema_has_its_row(part: Part, table: Mapping[Any, Any]) -> None:
    assert set(table) == {kind for kind, parts in PARTS.items() if part in parts}


@pytest.mark.parametrize("method", ["area", "linear", "nearest"])
@pytest.mark.parametrize(
    "turn", [Turn(), Turn(transpose=True), Turn(flip_rows=True), Turn(flip_columns=True)]
)
def test_prepare_is_its_steps_one_after_the_other(turn: Turn, method: str) -> None:
    steps = steps_of(RESCALE, TURN, {**GRID, "method": method}, IMAGES)
    image = stored(turn=turn, slope=0.5, intercept=-800.25, padding=7)
    one_by_one = running.STORED[type(steps[0])](image, steps[0])
    for step in parts_of(steps)[Part.IMAGE]:
        one_by_one = running.IMAGE[type(step)](one_by_one, step)
    result = prepare(image, steps)
    np.testing.assert_allclose(result.values, one_by_one.values, atol=0.01)
    assert result.spacing_mm == one_by_one.spacing_mm == (1.7, 1.7)


def test_steps_before_the_grid_see_values_as_they_are() -> None:
    scale = {"step": "scale_range", "source": [0, 1000], "target": [0, 1]}
    steps = steps_of(RESCALE, scale, {**GRID, "fill": 0.25}, IMAGES)
    values = prepare(stored(pixels=np.full((40, 60), 500, dtype=np.int16)), steps).values
    np.testing.assert_allclose(values, 0.5, atol=1e-6)


def test_nearest_values_are_exactly_the_images_own() -> None:
    steps = steps_of(RESCALE, {**GRID, "method": "nearest"}, IMAGES)
    image = stored(slope=0.1, intercept=0.3)
    own = (image.pixels * 0.1 + 0.3).astype(np.float32)
    assert np.isin(prepare(image, steps).values, [*own.ravel(), -1000.0]).all()


@pytest.mark.parametrize(
    "fields", [{}, {"turn": Turn(transpose=True)}, {"turn": Turn(flip_columns=True)}]
)
@pytest.mark.parametrize(
    "tables",
    [
        [],
        [TURN],
        [TURN, GRID],
        [TURN, {"step": "crop_or_pad", "rows": 8, "columns": 8, "fill": 0}],
        [{"step": "crop_to_foreground", "above": 1400}],
    ],
)
def test_prepared_values_are_contiguous_and_hold_nothing_else_in_memory(
    tables: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    result = prepare(
        stored(padding=3, is_monochrome1=True, **fields), steps_of(RESCALE, *tables, IMAGES)
    )
    values = result.values
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert (values if values.base is None else values.base).nbytes == values.nbytes
    assert result.padding is None
    assert result.minus == 0.0


def test_prepare_leaves_the_stored_pixels_alone() -> None:
    image = stored(turn=Turn(flip_rows=True))
    image.pixels.setflags(write=False)
    prepare(image, steps_of(RESCALE, TURN, GRID, IMAGES))


@given(
    order=st.permutations(range(7)),
    collect=st.sampled_from([SLABS, {**SLABS, "origin": "first_slice"}, SLICES, IMAGES]),
)
@hypothesis_settings(max_examples=20, deadline=None)
def test_input_does_not_depend_on_the_order_of_arrival(
    order: list[int], collect: dict[str, Any]
) -> None:
    steps = steps_of(RESCALE, GRID, collect, WINDOWS, NEIGHBOURS)
    images = series([2.1 * index - 5 for index in range(7)])
    expected = assemble(prepared(images, steps), steps, Layout.NCHW)
    shuffled = prepared([images[index] for index in order], steps)
    np.testing.assert_array_equal(assemble(shuffled, steps, Layout.NCHW), expected)


@given(
    count=st.integers(1, 9),
    collect=st.sampled_from([SLABS, IMAGES]),
    tail=st.sampled_from(
        [
            [],
            [WINDOWS],
            [NEIGHBOURS],
            [WINDOWS, NEIGHBOURS],
            [WINDOWS, {"step": "neighbours", "radius": 3}],
            [NEIGHBOURS, {"step": "repeat_channels", "times": 2}, {**NEIGHBOURS, "radius": 2}],
            [
                WINDOWS,
                NEIGHBOURS,
                {
                    "step": "standardise",
                    "mean": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
                    "deviation": [1, 2, 3, 4, 5, 6],
                },
            ],
        ]
    ),
    layout=st.sampled_from([Layout.NCHW, Layout.NHWC]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_input_of_one_item_is_that_item_of_the_whole_input(
    count: int, collect: dict[str, Any], tail: list[dict[str, Any]], layout: Layout
) -> None:
    steps = steps_of(RESCALE, GRID, collect, *tail)
    assert can_stream(steps)
    pictures = prepared(series([3.7 * index for index in range(count)]), steps)
    expected = assemble(pictures, steps, layout)
    items = plan_items(
        [item.position_mm for item in pictures],
        [item.thickness_mm for item in pictures],
        parts_of(steps)[Part.COLLECT][0],
    )
    averaged = [average_item(pictures, item) for item in items]
    radius = neighbour_radius(steps)
    for place in range(len(items)):
        first = max(place - radius, 0)
        window = averaged[first : place + radius + 1]
        one = items_input(window, range(place - first, place - first + 1), steps, layout)
        np.testing.assert_array_equal(one, expected[place : place + 1])
        assert one.flags.c_contiguous


def test_one_item_of_a_volume_is_a_mistake_of_ours() -> None:
    steps = steps_of(RESCALE, IMAGES)
    with pytest.raises(EngineMisuseError):
        items_input([np.zeros((8, 8), dtype=np.float32)], range(1), steps, Layout.NCDHW)


@pytest.mark.parametrize("layout", list(Layout))
def test_axes_are_those_of_the_layout(layout: Layout) -> None:
    steps = steps_of(RESCALE, GRID, SLICES, WINDOWS)
    tensor = assemble(prepared(series([0.0, 2.0, 4.0]), steps), steps, layout)
    sizes = {"N": 1 if layout.is_volume else 3, "D": 3, "C": 2, "H": 12, "W": 10}
    assert tensor.shape == tuple(sizes[axis] for axis in layout.value)
    assert tensor.flags.c_contiguous
    assert tensor.dtype == np.float32
    plain = assemble(prepared(series([0.0, 2.0, 4.0]), steps), steps, Layout.NCHW)
    letters = [axis for axis in layout.value if not (layout.is_volume and axis == "N")]
    place = {"N": 2, "D": 2, "C": 1, "H": 7, "W": 3}
    at = tuple(place[axis] for axis in letters)
    assert (tensor[0] if layout.is_volume else tensor)[at] == plain[2, 1, 7, 3]


def test_sizes_are_those_that_the_schema_promises() -> None:
    steps = steps_of(
        RESCALE,
        TURN,
        {"step": "resize", "rows": 16, "columns": 24},
        SLICES,
        {"step": "crop_or_pad", "rows": 20, "columns": 18, "slices": 4, "fill": 0},
        {"step": "resample_stack", "shape": [6, 8, 9]},
        WINDOWS,
        NEIGHBOURS,
    )
    promised = prepared_shape(steps)
    tensor = assemble(prepared(series([0.0, 2.0, 4.0]), steps), steps, Layout.NCHW)
    assert tensor.shape == (promised.slices, promised.channels, promised.rows, promised.columns)


def test_stack_steps_follow_each_other() -> None:
    steps = steps_of(
        RESCALE,
        SLICES,
        {"step": "crop_to_foreground", "above": 1450, "margin": 1},
        {"step": "resample_stack", "spacing_mm": [1.0, 1.0, 1.0]},
        {"step": "scale_range", "source": [-1000, 2000], "target": [-1, 1]},
        {"step": "zscore_normalise"},
        {"step": "percentile_normalise", "percentiles": [1, 99]},
        {"step": "crop_or_pad", "rows": 16, "columns": 16, "slices": 8, "fill": -3},
    )
    stack = finish(stack_of(prepared(series([0.0, 2.0, 4.0, 6.0]), steps), steps), steps)
    assert stack.values.shape == (8, 16, 16)
    assert stack.spacing_mm == (1.0, 1.0, 1.0)
    inside = stack.values[stack.values != -3]
    assert (inside.min(), inside.max()) == (0.0, 1.0)
    tensor = assemble(prepared(series([0.0, 2.0, 4.0, 6.0]), steps), steps, Layout.NCDHW)
    np.testing.assert_array_equal(tensor[0, 0], stack.values)


@pytest.mark.parametrize(
    ("collect", "positions", "between"),
    [
        (SLICES, [0.0, 2.0, 4.4], 2.2),
        (SLABS, [0.0, 2.0, 4.4], 5.0),
        ({**SLABS, "origin": "first_slice"}, [0.0], 5.0),
        (SLICES, [0.0], 3.0),
    ],
)
def test_stack_knows_its_spacing(
    collect: dict[str, Any], positions: list[float], between: float
) -> None:
    steps = steps_of(RESCALE, collect)
    stack = stack_of(prepared(series(positions, thickness_mm=3.0), steps), steps)
    assert stack.spacing_mm == pytest.approx((between, 0.81, 0.43))


@pytest.mark.parametrize(
    ("collect", "fields"), [(IMAGES, {}), (SLICES, {"spacing_mm": None}), (SLICES, {})]
)
def test_stack_without_one_of_its_spacings_has_none(
    collect: dict[str, Any], fields: dict[str, Any]
) -> None:
    steps = steps_of(RESCALE, collect)
    assert stack_of(prepared([stored(0.0, **fields)], steps), steps).spacing_mm is None


def test_radiographs_of_different_spacing_may_stand_for_themselves() -> None:
    steps = steps_of(RESCALE, {"step": "letterbox", "rows": 8, "columns": 8, "fill": 0}, IMAGES)
    images = [stored(spacing_mm=(0.1, 0.1)), stored(spacing_mm=None), stored(spacing_mm=(0.2, 0.2))]
    assert stack_of(prepared(images, steps), steps).values.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"spacing_mm": (0.81, 0.44)}, ImageFault.INCONSISTENT),
        ({"spacing_mm": None}, ImageFault.INCONSISTENT),
        ({"pixels": np.zeros((17, 22), dtype=np.int16)}, ImageFault.INCONSISTENT),
        ({"position_mm": None}, ImageFault.GEOMETRY_MISSING),
        ({"position_mm": 2.0}, ImageFault.DUPLICATE_POSITIONS),
    ],
)
def test_slices_that_do_not_belong_together_make_no_stack(
    changes: dict[str, Any], fault: ImageFault
) -> None:
    steps = steps_of(RESCALE, SLICES)
    images = [*series([0.0, 2.0]), stored(**{"position_mm": 4.0, **changes})]
    with pytest.raises(UnfitImagesError) as caught:
        assemble(prepared(images, steps), steps, Layout.NCHW)
    assert caught.value.fault is fault


@pytest.mark.parametrize("collect", [SLABS, SLICES, IMAGES], ids=lambda step: step["step"])
def test_pictures_that_come_one_by_one_make_the_same_input_and_are_let_go_of(
    collect: dict[str, Any],
) -> None:
    steps = steps_of(RESCALE, TURN, GRID, collect, NEIGHBOURS)
    positions = [2.0 * place for place in range(12)]
    pictures = prepared(series(positions), steps)
    items = plan_items(positions, [None] * 12, parts_of(steps)[Part.COLLECT][0])
    alive: list[weakref.ref[Any]] = []
    most = 0

    def one_by_one() -> Iterator[Picture]:
        nonlocal most
        for picture in pictures:
            made = replace(picture, values=picture.values.copy())
            alive.append(weakref.ref(made.values))
            yield made
            most = max(most, sum(each() is not None for each in alive))

    together = assemble(pictures, steps, Layout.NCHW)
    streamed = assemble_in_order(one_by_one(), items, steps, Layout.NCHW)
    np.testing.assert_array_equal(streamed, together)
    assert most <= 5


def test_no_pictures_make_no_input() -> None:
    steps = steps_of(RESCALE, IMAGES)
    with pytest.raises(UnfitImagesError) as caught:
        assemble([], steps, Layout.NCHW)
    assert caught.value.fault is ImageFault.NO_IMAGES


def test_channels_of_plain_values_are_one() -> None:
    assert channels_of(np.zeros((3, 8, 9), dtype=np.float32), steps_of(RESCALE, IMAGES)).shape == (
        3,
        1,
        8,
        9,
    )


OF_IMAGES: list[dict[str, Any]] = [
    {"step": "invert_monochrome1"},
    TURN,
    GRID,
    {"step": "resize", "rows": 9, "columns": 14, "method": "linear"},
    {"step": "letterbox", "rows": 16, "columns": 12, "fill": 0, "method": "nearest"},
]
OF_BOTH: list[dict[str, Any]] = [
    {"step": "crop_to_foreground", "above": 0.5},
    {"step": "crop_or_pad", "rows": 11, "columns": 20, "fill": 1},
    {"step": "percentile_normalise", "percentiles": [1, 99], "foreground_above": 0},
    {"step": "zscore_normalise"},
    {"step": "scale_range", "source": [-100, 100], "target": [0, 1], "clip": False},
]
OF_STACKS: list[dict[str, Any]] = [
    {"step": "resample_stack", "shape": [4, 8, 9]},
    {"step": "resample_stack", "spacing_mm": [1.5, 0.6, 0.7], "method": "area"},
]


@given(
    images=st.lists(st.sampled_from([*OF_IMAGES, *OF_BOTH]), max_size=3),
    collect=st.sampled_from([SLABS, SLICES, IMAGES]),
    stack=st.lists(st.sampled_from([*OF_BOTH, *OF_STACKS]), max_size=3),
    fields=st.fixed_dictionaries(
        {
            "slope": st.sampled_from([1.0, 0.5, -2.1978]),
            "padding": st.sampled_from([None, 7]),
            "is_monochrome1": st.booleans(),
            "turn": st.sampled_from([None, Turn(flip_rows=True, flip_columns=True)]),
            "thickness_mm": st.sampled_from([None, 2.0]),
        }
    ),
)
@hypothesis_settings(max_examples=80, deadline=None)
def test_any_steps_end_in_finite_numbers_of_the_promised_shape_or_in_a_reason(
    images: list[dict[str, Any]],
    collect: dict[str, Any],
    stack: list[dict[str, Any]],
    fields: dict[str, Any],
) -> None:
    images.sort(
        key=lambda step: step["step"] not in {"invert_monochrome1", "canonical_orientation"}
    )
    steps = steps_of(RESCALE, *images, collect, *stack, NEIGHBOURS)
    try:
        pictures = prepared(series([0.0, 2.0, 4.0], **fields), steps)
        tensor = assemble(pictures, steps, Layout.NCHW)
    except UnfitImagesError:
        return
    promised = prepared_shape(steps)
    wanted = (promised.slices, promised.channels, promised.rows, promised.columns)
    assert all(size in (FREE, ours) for size, ours in zip(wanted, tensor.shape, strict=True))
    assert np.isfinite(tensor).all()
