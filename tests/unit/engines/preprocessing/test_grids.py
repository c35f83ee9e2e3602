"""New grids, against SimpleITK, scipy, and means by the antiderivative."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulators.reference_images import (
    area_means,
    centred_image,
    on_grid,
    picture,
    sitk,
    zoomed,
)

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.grids import letterbox, resample_in_plane, resample_stack, resize
from engines.preprocessing.values import Float32, Float64, Stack
from engines.steps import Letterbox, ResampleInPlane, ResampleStack, Resize

# Float32 arithmetic on values up to some thousands.
HU_TOLERANCE = 0.01
METHODS = ["area", "linear", "nearest"]


def noise(*shape: int, seed: int = 3) -> Float32:
    return np.random.default_rng(seed).uniform(-1000, 3000, shape).astype(np.float32)


def in_plane(**fields: Any) -> ResampleInPlane:
    known: dict[str, Any] = {"rows": 12, "columns": 10, "pixel_mm": 1.7, "fill": -1000.0, **fields}
    return ResampleInPlane(step="resample_in_plane", **known)


def sized(rows: int, columns: int, method: str = "area") -> Resize:
    return Resize.model_validate(
        {"step": "resize", "rows": rows, "columns": columns, "method": method}
    )


def boxed(rows: int, columns: int, method: str = "area", fill: float = -5.0) -> Letterbox:
    fields = {"rows": rows, "columns": columns, "method": method, "fill": fill}
    return Letterbox.model_validate({"step": "letterbox", **fields})


def stacked(**fields: Any) -> ResampleStack:
    return ResampleStack.model_validate({"step": "resample_stack", **fields})


def area_in_plane(values: Float32, spacing: Sequence[float], step: ResampleInPlane) -> Float64:
    relative = values.astype(np.float64) - step.fill
    rows = area_means(relative, 0, spacing[0], step.rows, step.pixel_mm)
    return area_means(rows, 1, spacing[1], step.columns, step.pixel_mm) + step.fill


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    spacing=st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0)),
    pixel_mm=st.floats(0.3, 4.0),
    seed=st.integers(0, 2**32 - 1),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_area_in_plane_is_the_mean_of_what_each_pixel_covers(
    shape: tuple[int, int], spacing: tuple[float, float], pixel_mm: float, seed: int
) -> None:
    values = noise(*shape, seed=seed)
    step = in_plane(rows=17, columns=9, pixel_mm=pixel_mm)
    ours = resample_in_plane(picture(values, spacing_mm=spacing), step)
    np.testing.assert_allclose(ours.values, area_in_plane(values, spacing, step), atol=HU_TOLERANCE)


@pytest.mark.parametrize("method", ["linear", "nearest"])
@pytest.mark.parametrize("pixel_mm", [0.23, 1.7, 6.1])
@pytest.mark.parametrize("shape", [(17, 23), (20, 16), (1, 9)])
def test_linear_and_nearest_in_plane_are_simpleitks(
    shape: tuple[int, int], pixel_mm: float, method: str
) -> None:
    values = noise(*shape)
    step = in_plane(pixel_mm=pixel_mm, method=method, rows=31, columns=18)
    ours = resample_in_plane(picture(values, spacing_mm=(0.81, 0.43)), step)
    image = centred_image(values, (0.81, 0.43))
    theirs = on_grid(image, (31, 18), (pixel_mm, pixel_mm), method, fill=-1000.0)
    np.testing.assert_allclose(ours.values, theirs, atol=HU_TOLERANCE)
    assert ours.spacing_mm == (pixel_mm, pixel_mm)
    assert ours.padding is None


def test_area_by_whole_factors_is_simpleitks_bin_shrink() -> None:
    values = noise(48, 60)
    step = in_plane(rows=16, columns=12, pixel_mm=2.0)
    ours = resample_in_plane(picture(values, spacing_mm=(2.0 / 3, 0.4)), step)
    theirs = sitk.GetArrayFromImage(sitk.BinShrink(sitk.GetImageFromArray(values), [5, 3]))
    np.testing.assert_allclose(ours.values, theirs, atol=HU_TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_beyond_the_image_is_exactly_the_fill(method: str) -> None:
    ours = resample_in_plane(
        picture(noise(8, 8), spacing_mm=(1.0, 1.0)),
        in_plane(rows=40, columns=40, pixel_mm=1.0, fill=-1000.1, method=method),
    )
    assert (ours.values[:16] == np.float32(-1000.1)).all()
    assert (ours.values[:, 24:] == np.float32(-1000.1)).all()
    np.testing.assert_allclose(ours.values[16:24, 16:24], noise(8, 8), atol=HU_TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_values_that_came_less_the_fill_end_the_same(method: str) -> None:
    step = in_plane(method=method)
    plain = picture(noise(17, 23), spacing_mm=(0.8, 0.4))
    less = picture(noise(17, 23) + 1000.0, minus=-1000.0, spacing_mm=(0.8, 0.4))
    ours = resample_in_plane(less, step)
    assert ours.minus == 0.0
    np.testing.assert_allclose(
        ours.values, resample_in_plane(plain, step).values, atol=HU_TOLERANCE
    )


def test_padding_as_the_fill_stays_exactly_the_fill_through_averaging() -> None:
    step = in_plane(rows=8, columns=8, pixel_mm=3.3, fill=-1000.0)
    ours = resample_in_plane(picture(np.full((60, 60), -1000.0), spacing_mm=(0.7, 0.7)), step)
    assert (ours.values == -1000.0).all()


def turned_over(values: npt.NDArray[Any], turn: tuple[bool, bool, bool]) -> npt.NDArray[Any]:
    transpose, flip_rows, flip_columns = turn
    values = values.T if transpose else values
    return values[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


@given(
    turn=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    method=st.sampled_from(["area", "linear"]),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    spacing=st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0)),
    pixel_mm=st.floats(0.3, 4.0),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_turning_and_resampling_may_change_places(
    turn: tuple[bool, bool, bool],
    method: str,
    shape: tuple[int, int],
    spacing: tuple[float, float],
    pixel_mm: float,
) -> None:
    step = in_plane(method=method, rows=16, columns=16, pixel_mm=pixel_mm, fill=0.0)
    values = noise(*shape)
    shown = picture(turned_over(values, turn), spacing_mm=spacing[::-1] if turn[0] else spacing)
    after = turned_over(resample_in_plane(picture(values, spacing_mm=spacing), step).values, turn)
    np.testing.assert_allclose(resample_in_plane(shown, step).values, after, atol=HU_TOLERANCE)


@pytest.mark.parametrize("turn", list(product([False, True], repeat=3)))
def test_turning_and_taking_the_nearest_may_change_places(turn: tuple[bool, bool, bool]) -> None:
    values, spacing = noise(17, 23), (0.81, 0.43)
    step = in_plane(method="nearest", rows=16, columns=16)
    shown = picture(turned_over(values, turn), spacing_mm=spacing[::-1] if turn[0] else spacing)
    after = turned_over(resample_in_plane(picture(values, spacing_mm=spacing), step).values, turn)
    np.testing.assert_array_equal(resample_in_plane(shown, step).values, after)


@given(
    size=st.tuples(st.integers(8, 30), st.integers(8, 30)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_area_keeps_the_mean_when_it_stretches(
    size: tuple[int, int], shape: tuple[int, int], seed: int
) -> None:
    values = noise(*shape, seed=seed)
    ours = resize(picture(values), sized(*size))
    assert ours.values.mean(dtype=np.float64) == pytest.approx(
        values.mean(dtype=np.float64), abs=HU_TOLERANCE
    )


@given(
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_linear_resize_is_scipys(size: tuple[int, int], shape: tuple[int, int]) -> None:
    ours = resize(picture(noise(*shape)), sized(*size, "linear"))
    np.testing.assert_allclose(
        ours.values, zoomed(noise(*shape), size, "linear"), atol=HU_TOLERANCE
    )


# Sizes of which no new centre lies half-way between two old ones, where either is the nearest.
@pytest.mark.parametrize("size", [(8, 8), (16, 25), (29, 49), (51, 75)])
def test_nearest_resize_is_scipys(size: tuple[int, int]) -> None:
    ours = resize(picture(noise(17, 25)), sized(*size, "nearest"))
    np.testing.assert_array_equal(ours.values, zoomed(noise(17, 25), size, "nearest"))


def test_resize_follows_the_spacing() -> None:
    ours = resize(picture(noise(20, 30), spacing_mm=(0.4, 0.8)), sized(10, 60))
    assert ours.spacing_mm == pytest.approx((0.8, 0.4))
    assert resize(picture(noise(20, 30)), sized(10, 60)).spacing_mm is None


@pytest.mark.parametrize("method", METHODS)
def test_resize_to_the_same_size_changes_nothing(method: str) -> None:
    np.testing.assert_array_equal(
        resize(picture(noise(13, 19)), sized(13, 19, method)).values, noise(13, 19)
    )


@pytest.mark.parametrize(
    ("shape", "spacing", "inside"),
    [
        ((40, 20), None, (16, 8)),  # tall
        ((20, 40), None, (8, 16)),  # wide
        ((20, 20), None, (16, 16)),
        ((20, 20), (0.5, 1.0), (8, 16)),  # wide in millimetres
        ((40, 20), (0.5, 1.0), (16, 16)),
        ((3, 2), None, (16, 11)),  # enlarged
        ((2000, 1), None, (16, 1)),
        ((1, 2000), None, (1, 16)),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_letterbox_keeps_proportions_in_the_middle(
    shape: tuple[int, int],
    spacing: tuple[float, float] | None,
    inside: tuple[int, int],
    method: str,
) -> None:
    values = noise(*shape)
    ours = letterbox(picture(values, spacing_mm=spacing), boxed(16, 16, method))
    top, left = ((16 - size) // 2 for size in inside)
    middle = (slice(top, top + inside[0]), slice(left, left + inside[1]))
    expected = np.full((16, 16), -5.0)
    if method == "area":
        rows = area_means(values, 0, 1.0, inside[0], shape[0] / inside[0])
        expected[middle] = area_means(rows, 1, 1.0, inside[1], shape[1] / inside[1])
    else:
        expected[middle] = zoomed(values, inside, method)
    np.testing.assert_allclose(ours.values, expected, atol=HU_TOLERANCE)


def test_letterbox_follows_the_spacing() -> None:
    ours = letterbox(picture(noise(40, 20), spacing_mm=(0.5, 0.5)), boxed(16, 16))
    assert ours.spacing_mm == pytest.approx((1.25, 1.25))


@pytest.mark.parametrize("method", ["linear", "nearest"])
@pytest.mark.parametrize("new_mm", [(1.3, 0.7, 0.9), (5.1, 2.2, 0.31), (0.6, 0.6, 3.7)])
@pytest.mark.parametrize("shape", [(7, 12, 9), (10, 5, 16)])
def test_stack_to_a_spacing_is_simpleitks(
    shape: tuple[int, int, int], new_mm: tuple[float, float, float], method: str
) -> None:
    spacing = (2.5, 0.81, 0.43)
    ours = resample_stack(
        Stack(values=noise(*shape), spacing_mm=spacing), stacked(spacing_mm=new_mm, method=method)
    )
    expected = [
        max(1, round(size * old / new))
        for size, old, new in zip(shape, spacing, new_mm, strict=True)
    ]
    theirs = on_grid(centred_image(noise(*shape), spacing), expected, new_mm, method)
    assert ours.values.shape == tuple(expected)
    np.testing.assert_allclose(ours.values, theirs, atol=HU_TOLERANCE)
    assert ours.spacing_mm == new_mm


def test_oblique_stack_to_a_spacing_is_simpleitks() -> None:
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    image = centred_image(noise(6, 11, 8), (3.0, 0.4, 0.8), turn)
    theirs = on_grid(image, (18, 6, 9), (1.0, 0.73, 0.71), "linear")
    step = stacked(spacing_mm=(1.0, 0.73, 0.71))
    ours = resample_stack(Stack(values=noise(6, 11, 8), spacing_mm=(3.0, 0.4, 0.8)), step)
    np.testing.assert_allclose(ours.values, theirs, atol=HU_TOLERANCE)


@pytest.mark.parametrize("shape", [(3, 8, 20), (14, 9, 8), (1, 16, 16)])
def test_stack_to_a_shape_keeps_its_extent(shape: tuple[int, int, int]) -> None:
    stack = Stack(values=noise(6, 11, 13), spacing_mm=(3.0, 0.4, 0.8))
    ours = resample_stack(stack, stacked(shape=shape, method="linear"))
    np.testing.assert_allclose(
        ours.values, zoomed(stack.values, shape, "linear"), atol=HU_TOLERANCE
    )
    assert ours.spacing_mm is not None
    extents = [mm * size for mm, size in zip(ours.spacing_mm, shape, strict=True)]
    assert extents == pytest.approx([18.0, 4.4, 10.4])


@pytest.mark.parametrize("new_mm", [(1.3, 0.7, 0.9), (7.0, 1.1, 0.31)])
def test_stack_by_area_is_the_mean_of_what_each_voxel_covers(
    new_mm: tuple[float, float, float],
) -> None:
    spacing, values = (2.5, 0.81, 0.43), noise(7, 12, 9)
    ours = resample_stack(
        Stack(values=values, spacing_mm=spacing), stacked(spacing_mm=new_mm, method="area")
    )
    means, covered = values.astype(np.float64), np.ones(values.shape)
    for axis in range(3):
        cells = ours.values.shape[axis]
        means = area_means(means, axis, spacing[axis], cells, new_mm[axis])
        covered = area_means(covered, axis, spacing[axis], cells, new_mm[axis])
    np.testing.assert_allclose(ours.values, means / covered, atol=HU_TOLERANCE)


def test_stack_of_unknown_spacing_goes_to_a_shape_but_to_no_spacing() -> None:
    stack = Stack(values=noise(4, 9, 9))
    assert resample_stack(stack, stacked(shape=(2, 8, 8))).spacing_mm is None
    with pytest.raises(UnfitImagesError) as caught:
        resample_stack(stack, stacked(spacing_mm=(1, 1, 1)))
    assert caught.value.fault is ImageFault.GEOMETRY_MISSING


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": (64, 64, 64), "max_voxels": 262_143},
        {"spacing_mm": (0.1, 0.1, 0.1), "max_voxels": 262_143},
        {"spacing_mm": (1.0, 1.0, 0.0001), "max_voxels": 512_000_000},
    ],
)
def test_stack_that_would_grow_too_large_is_refused_before_it_does(fields: dict[str, Any]) -> None:
    stack = Stack(values=noise(6, 8, 8), spacing_mm=(1.0, 1.0, 1.0))
    with pytest.raises(UnfitImagesError) as caught:
        resample_stack(stack, stacked(**fields))
    assert caught.value.fault is ImageFault.TOO_LARGE


def test_image_without_spacing_has_no_grid_in_millimetres() -> None:
    with pytest.raises(UnfitImagesError) as caught:
        resample_in_plane(picture(noise(8, 8)), in_plane())
    assert caught.value.fault is ImageFault.GEOMETRY_MISSING


@pytest.mark.parametrize("method", METHODS)
def test_peers_grid_never_grows_the_weights_beyond_the_band(method: str) -> None:
    values = np.zeros((40_000, 1), dtype=np.float32)
    step = in_plane(rows=1024, columns=1024, pixel_mm=0.1, method=method)
    ours = resample_in_plane(picture(values, spacing_mm=(0.001, 0.001)), step)
    assert ours.values.shape == (1024, 1024)


@pytest.mark.parametrize("method", METHODS)
def test_constant_pictures_stay_constant(method: str) -> None:
    ours = resize(picture(np.full((37, 41), 40.0)), sized(16, 90, method))
    np.testing.assert_allclose(ours.values, 40.0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_steps_do_not_write_into_what_they_are_given(method: str) -> None:
    values = noise(17, 23)
    values.setflags(write=False)
    shown = picture(values, spacing_mm=(1.0, 2.0))
    resample_in_plane(shown, in_plane(method=method))
    resize(shown, sized(9, 9, method))
    letterbox(shown, boxed(9, 9, method))
    resample_stack(
        Stack(values=values[np.newaxis], spacing_mm=(1.0, 1.0, 1.0)),
        stacked(shape=(1, 8, 8), method=method),
    )
