"""The fused kernel against engines.preprocessing: the same input, within the stated rounding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulators.fused import FusedKernel, by_numpy, grid_bound
from simulators.reference_images import steps_of

from engines.package import Layout
from engines.preprocessing.values import StoredImage, Turn

RESCALE = {"step": "rescale", "padding": -1000.0}
INVERT = {"step": "invert_monochrome1"}
TURN = {"step": "canonical_orientation"}
GRID = {"step": "resample_in_plane", "rows": 12, "columns": 10, "pixel_mm": 1.7, "fill": -1000.0}
RESIZE = {"step": "resize", "rows": 12, "columns": 10}
BOX = {"step": "letterbox", "rows": 12, "columns": 15, "fill": -7.5}
EXACT_GRID = {**GRID, "method": "nearest"}
SLABS = {"step": "average_slabs", "thickness_mm": 5.0}
SLICES = {"step": "stack_slices"}
IMAGES = {"step": "each_image"}
WINDOWS = {
    "step": "window_channels",
    "windows": [{"low": 0.0, "high": 80.0}, {"low": -1000.0, "high": 1400.0}],
}
NEIGHBOURS = {"step": "neighbours", "radius": 1}
METHODS = ["area", "linear", "nearest"]
TURNS = [
    Turn(transpose=transpose, flip_rows=rows, flip_columns=columns)
    for transpose, rows, columns in product([False, True], repeat=3)
]


def stored(
    pixels: Any = None, dtype: Any = np.int16, *, seed: int = 0, **fields: Any
) -> StoredImage:
    if pixels is None:
        pixels = np.random.default_rng(seed).integers(-1024, 3000, (17, 23))
    array = np.asarray(pixels, dtype=dtype)
    known: dict[str, Any] = {
        "bits_stored": array.dtype.itemsize * 8,
        "is_signed": array.dtype.kind == "i",
        "spacing_mm": (0.81, 0.43),
    }
    return StoredImage(pixels=array, **{**known, **fields})


def series(positions: Sequence[float | None], **fields: Any) -> list[StoredImage]:
    return [stored(seed=index, position_mm=z, **fields) for index, z in enumerate(positions)]


def check_pictures(
    kernel: FusedKernel, images: Sequence[StoredImage], *tables: dict[str, Any]
) -> None:
    """Of steps that end with their grid, and average nothing."""
    steps = steps_of(*tables)
    np.testing.assert_allclose(
        kernel.assemble(images, steps),
        by_numpy(images, steps),
        rtol=0,
        atol=grid_bound(images, steps),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("grid", [GRID, RESIZE, BOX])
def test_turned_anisotropic_images_are_those_of_numpy(
    kernel: FusedKernel, grid: dict[str, Any], turn: Turn, method: str
) -> None:
    check_pictures(kernel, [stored(turn=turn)], RESCALE, TURN, {**grid, "method": method}, IMAGES)


@pytest.mark.parametrize("grid", [GRID, RESIZE, BOX])
def test_a_turn_without_its_step_is_left_alone(kernel: FusedKernel, grid: dict[str, Any]) -> None:
    check_pictures(kernel, [stored(turn=TURNS[-1])], RESCALE, grid, IMAGES)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, -800.25), (-2.1978, 3.3)])
def test_stored_values_of_every_type_are_rescaled_to_the_same_bits(
    kernel: FusedKernel, dtype: Any, slope: float, intercept: float
) -> None:
    limits = np.iinfo(dtype)
    ends = max(limits.min, -70_000), min(limits.max, 70_000)
    pixels = np.linspace(*ends, 17 * 23).reshape(17, 23)
    image = stored(pixels, dtype, slope=slope, intercept=intercept)
    steps = steps_of(RESCALE, EXACT_GRID, IMAGES)
    np.testing.assert_array_equal(kernel.assemble([image], steps), by_numpy([image], steps))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_every_stored_value_is_rescaled_to_the_same_bits(kernel: FusedKernel, dtype: Any) -> None:
    pixels = np.arange(65536, dtype=np.uint16).view(dtype).reshape(256, 256)
    image = stored(pixels, dtype, slope=0.1, intercept=-1024.3, spacing_mm=(1.0, 1.0))
    grid = {"step": "resize", "rows": 256, "columns": 256}
    steps = steps_of(RESCALE, grid, IMAGES)
    np.testing.assert_array_equal(kernel.assemble([image], steps), by_numpy([image], steps))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.int8])
@pytest.mark.parametrize(
    "padding", [(-2000, None), (63536, None), (-2000, -1990), (63546, 63536), (5, 90), (90, 5)]
)
def test_padding_is_found_where_numpy_finds_it(
    kernel: FusedKernel, dtype: Any, padding: tuple[int, int | None]
) -> None:
    values = np.random.default_rng(4).choice(
        np.array([63535, 63536, 63540, 63546, 63547, 4, 5, 48, 90, 91], dtype=np.uint16), (17, 23)
    )
    pixels = values.view(np.int16) if dtype is np.int16 else values.astype(dtype)
    image = stored(pixels, dtype, padding=padding[0], padding_limit=padding[1], intercept=-7.0)
    for grid in (GRID, EXACT_GRID):
        check_pictures(kernel, [image], RESCALE, grid, IMAGES)


@pytest.mark.parametrize("is_monochrome1", [False, True])
@pytest.mark.parametrize("order", [(INVERT, TURN), (TURN, INVERT), (INVERT,)])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint16, 12), (np.int16, 12), (np.uint8, 8)])
def test_monochrome1_is_turned_over_and_its_padding_is_not(
    kernel: FusedKernel,
    dtype: Any,
    bits: int,
    order: Sequence[dict[str, Any]],
    *,
    is_monochrome1: bool,
) -> None:
    pixels = np.random.default_rng(1).integers(0, 100, (17, 23))
    image = stored(
        pixels,
        dtype,
        bits_stored=bits,
        is_monochrome1=is_monochrome1,
        padding=9,
        padding_limit=12,
        slope=2.0,
        intercept=-10.0,
        turn=TURNS[5],
    )
    for grid in (EXACT_GRID, GRID, RESIZE, BOX):
        check_pictures(kernel, [image], RESCALE, *order, grid, IMAGES)


def test_monochrome1_without_the_step_is_left_alone(kernel: FusedKernel) -> None:
    check_pictures(kernel, [stored(is_monochrome1=True)], RESCALE, EXACT_GRID, IMAGES)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("is_monochrome1", [False, True])
def test_bits_above_bits_stored_mean_what_they_mean_to_numpy(
    kernel: FusedKernel, dtype: Any, *, is_monochrome1: bool
) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (17, 23)).astype(np.uint16).view(dtype)
    image = stored(pixels, dtype, bits_stored=12, is_monochrome1=is_monochrome1, padding=4096)
    for grid in (EXACT_GRID, GRID):
        check_pictures(kernel, [image], RESCALE, INVERT, grid, IMAGES)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pixel_mm", [0.1, 0.43, 6.1, 40.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (17, 23), (64, 64)])
def test_grids_of_any_scale_are_those_of_numpy(
    kernel: FusedKernel, shape: tuple[int, int], pixel_mm: float, method: str
) -> None:
    pixels = np.random.default_rng(8).integers(-1024, 3000, shape)
    grid = {**GRID, "pixel_mm": pixel_mm, "method": method}
    check_pictures(kernel, [stored(pixels, turn=TURNS[4])], RESCALE, TURN, grid, IMAGES)


@pytest.mark.parametrize("grid", [GRID, RESIZE, BOX])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turn", [Turn(), TURNS[4], TURNS[7]])
def test_rows_longer_than_the_kernel_holds_at_a_time_lose_nothing(
    kernel: FusedKernel, turn: Turn, method: str, grid: dict[str, Any]
) -> None:
    pixels = np.random.default_rng(8).integers(-1024, 3000, (3, 5000))
    image = stored(pixels, turn=turn, spacing_mm=(4.0, 0.004))
    check_pictures(kernel, [image], RESCALE, TURN, {**grid, "method": method}, IMAGES)


def test_one_cell_may_cover_more_columns_than_the_kernel_holds(kernel: FusedKernel) -> None:
    pixels = np.random.default_rng(8).integers(0, 65536, (2, 40_000))
    image = stored(pixels, np.uint16, spacing_mm=(1.0, 0.001))
    check_pictures(kernel, [image], RESCALE, {**RESIZE, "rows": 8, "columns": 8}, IMAGES)


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_beyond_the_image_is_exactly_the_fill(kernel: FusedKernel, method: str) -> None:
    grid = {**GRID, "rows": 40, "columns": 40, "pixel_mm": 1.0, "fill": -1000.1, "method": method}
    image = stored(np.zeros((8, 8)), spacing_mm=(1.0, 1.0))
    values = kernel.assemble([image], steps_of(RESCALE, grid, IMAGES))[0, 0]
    assert (values[:16] == np.float32(-1000.1)).all()
    assert (values[:, 24:] == np.float32(-1000.1)).all()
    np.testing.assert_allclose(values[16:24, 16:24], 0.0, atol=1e-3)


def test_padding_as_the_fill_stays_exactly_the_fill_through_averaging(kernel: FusedKernel) -> None:
    image = stored(np.full((60, 60), -32768), padding=-32768, spacing_mm=(0.7, 0.7))
    grid = {**GRID, "rows": 8, "columns": 8, "pixel_mm": 3.3}
    assert (kernel.assemble([image], steps_of(RESCALE, grid, IMAGES)) == -1000.0).all()


def test_extreme_unsigned_values_stay_exact(kernel: FusedKernel) -> None:
    image = stored(np.full((64, 64), 65535), np.uint16, intercept=-32768.0, spacing_mm=(0.5, 0.5))
    grid = {**GRID, "rows": 8, "columns": 8, "pixel_mm": 3.0}
    values = kernel.assemble([image], steps_of(RESCALE, grid, IMAGES))
    np.testing.assert_allclose(values, 32767.0, atol=0.05)


def test_each_slice_has_a_rescale_of_its_own(kernel: FusedKernel) -> None:
    rescales = [(1.0, 0.0), (0.25, -3.5), (2.0, -1024.0), (0.1, 0.3)]
    images = [
        stored(seed=7, slope=slope, intercept=intercept, position_mm=float(z))
        for z, (slope, intercept) in enumerate(rescales)
    ]
    steps = steps_of(RESCALE, EXACT_GRID, SLICES)
    np.testing.assert_array_equal(kernel.assemble(images, steps), by_numpy(images, steps))


# Behind a grid of the nearest pixels nothing is summed in another order.
@pytest.mark.parametrize("collect", [SLABS, {**SLABS, "origin": "first_slice"}, SLICES, IMAGES])
@pytest.mark.parametrize(
    "tail",
    [
        [],
        [WINDOWS],
        [NEIGHBOURS],
        [WINDOWS, {"step": "neighbours", "radius": 8}],
        [NEIGHBOURS, {"step": "repeat_channels", "times": 2}],
        [
            WINDOWS,
            NEIGHBOURS,
            {
                "step": "standardise",
                "mean": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
                "deviation": [1, 2, 3, 4, 5, 0.7],
            },
        ],
    ],
)
@pytest.mark.parametrize("layout", list(Layout))
def test_everything_behind_the_grid_has_the_same_bits(
    kernel: FusedKernel, collect: dict[str, Any], tail: list[dict[str, Any]], layout: Layout
) -> None:
    steps = steps_of(RESCALE, EXACT_GRID, collect, *tail)
    images = series([2.1 * index - 7 for index in range(11)])
    np.testing.assert_array_equal(
        kernel.assemble(images, steps, layout), by_numpy(images, steps, layout)
    )


@pytest.mark.parametrize("columns", [8, 33, 257])
def test_pictures_larger_than_one_tile_are_whole(kernel: FusedKernel, columns: int) -> None:
    grid = {"step": "resize", "rows": 64, "columns": columns, "method": "nearest"}
    steps = steps_of(RESCALE, grid, SLABS, WINDOWS, NEIGHBOURS)
    images = series([1.9 * index for index in range(9)])
    for layout in (Layout.NCHW, Layout.NHWC):
        np.testing.assert_array_equal(
            kernel.assemble(images, steps, layout), by_numpy(images, steps, layout)
        )


def test_missing_slice_moves_nothing_that_lies_beyond_it(kernel: FusedKernel) -> None:
    steps = steps_of(RESCALE, EXACT_GRID, SLABS)
    images = series([2.5, 7.5, 12.5, 22.5, 27.5])
    np.testing.assert_array_equal(kernel.assemble(images, steps), by_numpy(images, steps))


@given(order=st.permutations(range(9)), collect=st.sampled_from([SLABS, SLICES, IMAGES]))
@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_input_does_not_depend_on_the_order_of_arrival(
    kernel: FusedKernel, order: list[int], collect: dict[str, Any]
) -> None:
    steps = steps_of(RESCALE, GRID, collect, WINDOWS, NEIGHBOURS)
    images = series([2.1 * index - 5 for index in range(9)])
    shuffled = [images[index] for index in order]
    np.testing.assert_array_equal(kernel.assemble(shuffled, steps), kernel.assemble(images, steps))


SCALE = {"step": "scale_range", "source": [-1000, 1000.7], "target": [-1, 0.3]}
MAPS: list[list[dict[str, Any]]] = [
    [SCALE],
    [{**SCALE, "clip": False}],
    [{"step": "percentile_normalise", "percentiles": [1, 99]}],
    [{"step": "percentile_normalise", "percentiles": [0, 100], "clip": False}],
    [{"step": "percentile_normalise", "percentiles": [20, 61.3], "foreground_above": 100}],
    [{"step": "percentile_normalise", "percentiles": [1, 99]}, SCALE],
    [SCALE, {"step": "percentile_normalise", "percentiles": [3, 97]}],
]


@pytest.mark.parametrize("steps", MAPS)
def test_maps_of_a_pictures_values_have_the_same_bits(
    kernel: FusedKernel, steps: list[dict[str, Any]]
) -> None:
    # The last two have no contrast, and little.
    little = np.random.default_rng(2).integers(0, 4, (9, 9))
    images = [
        stored(),
        stored(seed=3, slope=0.1),
        stored(np.full((9, 9), 700), spacing_mm=(2, 2)),
        stored(little, slope=0.01, intercept=1e3, spacing_mm=(2, 2)),
    ]
    taken = steps_of(RESCALE, EXACT_GRID, *steps, IMAGES)
    np.testing.assert_array_equal(kernel.assemble(images, taken), by_numpy(images, taken))


@pytest.mark.parametrize("foreground", [None, 0.0])
@pytest.mark.parametrize("size", [(8, 8), (300, 41)])
def test_deviations_differ_by_the_order_of_their_sums_only(
    kernel: FusedKernel, size: tuple[int, int], foreground: float | None
) -> None:
    step: dict[str, Any] = {"step": "zscore_normalise"}
    if foreground is not None:
        step["foreground_above"] = foreground
    grid = {"step": "resize", "rows": size[0], "columns": size[1], "method": "nearest"}
    # The last two have a mean that float32 rounds by a part of the deviation, and little contrast.
    few = np.random.default_rng(2).integers(0, 4, (9, 9))
    images = [
        stored(),
        stored(np.full((9, 9), 700)),
        stored(seed=9, slope=0.1, intercept=1e4),
        stored(few, intercept=1e6),
        stored(few, slope=0.01, intercept=1e3),
    ]
    taken = steps_of(RESCALE, grid, step, IMAGES)
    np.testing.assert_allclose(
        kernel.assemble(images, taken), by_numpy(images, taken), rtol=1e-6, atol=1e-6
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    distinct=st.sampled_from([1, 2, 5, 10_000]),
    percentiles=st.tuples(st.floats(0, 49), st.floats(51, 100)),
    above=st.none() | st.floats(-900, 2000),
)
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_order_statistics_are_exact_whatever_repeats(
    kernel: FusedKernel,
    seed: int,
    distinct: int,
    percentiles: tuple[float, float],
    above: float | None,
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.choice(rng.integers(-1024, 3000, distinct), (16, 16))
    pixels[0, 0] = 3000  # above any foreground
    step: dict[str, Any] = {"step": "percentile_normalise", "percentiles": percentiles}
    if above is not None:
        step["foreground_above"] = above
    grid = {"step": "resize", "rows": 16, "columns": 16}
    image = stored(pixels, slope=float(rng.choice([1.0, -0.1])), intercept=float(rng.normal()))
    if above is not None and image.slope < 0:
        return
    steps = steps_of(RESCALE, grid, step, IMAGES)
    np.testing.assert_array_equal(kernel.assemble([image], steps), by_numpy([image], steps))


@st.composite
def any_image(draw: st.DrawFn) -> StoredImage:
    dtype: Any = draw(st.sampled_from([np.int16, np.uint16, np.uint8]))
    limits = np.iinfo(dtype)
    shape = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return stored(
        rng.integers(limits.min, limits.max, shape, endpoint=True),
        dtype,
        spacing_mm=draw(st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0))),
        turn=draw(st.sampled_from([None, *TURNS])),
        slope=draw(st.sampled_from([1.0, 0.5, -2.1978])),
        intercept=draw(st.sampled_from([0.0, -1024.0, 0.3])),
        padding=draw(st.sampled_from([None, 7, -2000])),
        padding_limit=draw(st.sampled_from([None, 40, 63600])),
        is_monochrome1=draw(st.booleans()),
        # Values have bits above it, unless there are no more.
        bits_stored=8,
    )


@given(
    image=any_image(),
    ahead=st.sampled_from([[], [TURN], [INVERT], [INVERT, TURN], [TURN, INVERT]]),
    grid=st.sampled_from([GRID, RESIZE, BOX]),
    method=st.sampled_from(METHODS),
)
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_image_makes_the_picture_that_numpy_makes(
    kernel: FusedKernel,
    image: StoredImage,
    ahead: list[dict[str, Any]],
    grid: dict[str, Any],
    method: str,
) -> None:
    check_pictures(kernel, [image], RESCALE, *ahead, {**grid, "method": method}, IMAGES)


def test_windows_widen_the_bound_by_their_width_only(kernel: FusedKernel) -> None:
    windows = {"step": "window_channels", "windows": [{"low": 0.0, "high": 80.0}]}
    images = series([1.25 * index for index in range(20)], turn=TURNS[3])
    steps = steps_of(RESCALE, TURN, GRID, SLABS, windows, NEIGHBOURS)
    bound = grid_bound(images, steps) / 80.0 + 1e-6
    np.testing.assert_allclose(
        kernel.assemble(images, steps), by_numpy(images, steps), rtol=0, atol=bound
    )
