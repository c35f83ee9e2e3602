"""Maps of values, against numpy, scipy and SimpleITK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]  # comes without types
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from simulators.reference_images import picture, sitk

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.intensity import (
    normalise_picture_by_percentiles,
    normalise_picture_by_zscore,
    normalise_stack_by_percentiles,
    normalise_stack_by_zscore,
    scale_picture,
    scale_stack,
)
from engines.preprocessing.rescaling import invert_monochrome1
from engines.preprocessing.values import Float32, Stack
from engines.steps import (
    InvertMonochrome1,
    PercentileNormalise,
    ScaleRange,
    ZscoreNormalise,
)

TOLERANCE = 1e-5


def noise(*shape: int) -> Float32:
    return np.random.default_rng(5).normal(300, 500, shape).astype(np.float32)


def percentiles(low: float, high: float, **fields: Any) -> PercentileNormalise:
    return PercentileNormalise(step="percentile_normalise", percentiles=(low, high), **fields)


def zscore(above: float | None = None) -> ZscoreNormalise:
    return ZscoreNormalise(step="zscore_normalise", foreground_above=above)


def scale(source: Any, target: Any, *, clip: bool = True) -> ScaleRange:
    return ScaleRange(step="scale_range", source=source, target=target, clip=clip)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("above", [None, 250.0])
@pytest.mark.parametrize("wanted", [(0, 100), (0.5, 99.5), (2, 98), (33.3, 34)])
@pytest.mark.parametrize("shape", [(16, 16), (7, 9), (1, 2)])
def test_percentiles_are_numpys(
    shape: tuple[int, int], wanted: tuple[float, float], above: float | None, *, clip: bool
) -> None:
    values = noise(*shape)
    values[0, :2] = (300.0, 900.0)
    counted = values if above is None else values[values > above]
    low, high = np.percentile(counted.astype(np.float64), wanted)
    expected = (values - low) / (high - low)
    step = percentiles(*wanted, clip=clip, foreground_above=above)
    ours = normalise_picture_by_percentiles(picture(values), step).values
    expected = np.clip(expected, 0, 1) if clip else expected
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=TOLERANCE)
    stack = normalise_stack_by_percentiles(Stack(values=values[np.newaxis]), step)
    np.testing.assert_array_equal(stack.values[0], ours)


@pytest.mark.parametrize("above", [None, 250.0])
@pytest.mark.parametrize("shape", [(16, 16), (3, 5, 7)])
def test_zscore_is_scipys(shape: tuple[int, ...], above: float | None) -> None:
    values = noise(*shape)
    counted = values.astype(np.float64)
    counted = counted.ravel() if above is None else counted[counted > above]
    expected = scipy.stats.zmap(values.astype(np.float64), counted)
    if len(shape) == 2:
        ours = normalise_picture_by_zscore(picture(values), zscore(above)).values
    else:
        ours = normalise_stack_by_zscore(Stack(values=values), zscore(above)).values
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


def test_zscore_stays_exact_far_from_zero() -> None:
    values = (np.arange(4096.0).reshape(64, 64) % 7) + 1e6
    ours = normalise_picture_by_zscore(picture(values), zscore()).values
    expected = scipy.stats.zscore(values, axis=None)
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


@pytest.mark.parametrize("clip", [True, False])
def test_range_is_scaled_as_simpleitk_windows(*, clip: bool) -> None:
    values = noise(16, 16)
    step = scale((-160, 240), (-1, 1), clip=clip)
    ours = scale_picture(picture(values), step).values
    theirs = sitk.GetArrayFromImage(
        sitk.IntensityWindowing(sitk.GetImageFromArray(values), -160, 240, -1, 1)
    )
    inside = (values >= -160) & (values <= 240) if not clip else np.ones(values.shape, dtype=bool)
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=TOLERANCE)
    np.testing.assert_allclose(
        ours[~inside], (values[~inside] + 160) / 200 - 1, atol=TOLERANCE, rtol=TOLERANCE
    )
    np.testing.assert_array_equal(
        scale_stack(Stack(values=values[np.newaxis]), step).values[0], ours
    )


def test_clipped_range_ends_exactly_at_its_ends() -> None:
    ours = scale_picture(picture([[-1e5, 1e5, 0.3, 0.1]]), scale((0.1, 0.3), (0.2, 0.7))).values
    assert ours[0].tolist() == [
        np.float32(0.2),
        np.float32(0.7),
        pytest.approx(0.7),
        pytest.approx(0.2),
    ]
    assert ours.max() <= np.float32(0.7)


@pytest.mark.parametrize("value", [0.0, 40.1, -1000.0, 1e6])
def test_constant_pictures_become_zero(value: float) -> None:
    # What averaging in float32 makes of a constant is a constant still.
    values = np.full((16, 16), value, dtype=np.float32)
    values[::3] = np.nextafter(values[::3], np.float32(np.inf))
    assert not normalise_picture_by_percentiles(picture(values), percentiles(1, 99)).values.any()
    assert not normalise_picture_by_zscore(picture(values), zscore()).values.any()
    stack = Stack(values=values[np.newaxis])
    assert not normalise_stack_by_percentiles(stack, percentiles(1, 99)).values.any()
    assert not normalise_stack_by_zscore(stack, zscore()).values.any()


def test_pictures_without_foreground_are_refused() -> None:
    shown = picture(noise(4, 4))
    with pytest.raises(UnfitImagesError) as caught:
        normalise_picture_by_zscore(shown, zscore(above=1e6))
    assert caught.value.fault is ImageFault.NO_FOREGROUND
    with pytest.raises(UnfitImagesError) as caught:
        normalise_picture_by_percentiles(shown, percentiles(1, 99, foreground_above=1e6))
    assert caught.value.fault is ImageFault.NO_FOREGROUND


@given(
    values=hypothesis_numpy.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(-(2.0**40), 2.0**40, width=32),
    )
)
@hypothesis_settings(max_examples=50, deadline=None)
def test_no_picture_makes_anything_that_is_no_number(values: Float32) -> None:
    shown = picture(values)
    for mapped in (
        normalise_picture_by_percentiles(shown, percentiles(1, 99, clip=False)),
        normalise_picture_by_zscore(shown, zscore()),
        scale_picture(shown, scale((0, 1e-6), (-1e6, 1e6), clip=False)),
        scale_picture(shown, scale((0, 1e-6), (-1e6, 1e6))),
    ):
        assert np.isfinite(mapped.values).all()
        assert np.isfinite(mapped.extremes).all()


@pytest.mark.parametrize(
    "normalise",
    [
        lambda shown: scale_picture(shown, scale((0, 50), (0, 1))),
        lambda shown: normalise_picture_by_percentiles(shown, percentiles(10, 90)),
        lambda shown: normalise_picture_by_zscore(shown, zscore()),
    ],
)
def test_turning_over_fits_the_values_that_came_before_it(normalise: Any) -> None:
    shown = picture([[0.0, 20.0, 50.0, 100.0]], is_monochrome1=True)
    mapped = normalise(shown)
    turned = invert_monochrome1(mapped, InvertMonochrome1(step="invert_monochrome1"))
    ends = (mapped.values.min(), mapped.values.max())
    assert (turned.values.max(), turned.values.min()) == pytest.approx(ends[::-1], abs=1e-6)
    np.testing.assert_allclose(turned.values, sum(ends) - mapped.values, atol=1e-6)
