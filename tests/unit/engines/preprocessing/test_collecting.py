"""Which pictures make which item, against a walk along the normal in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulators.reference_images import picture

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.collecting import Item, average_item, order_pictures
from engines.preprocessing.running import plan_items
from engines.preprocessing.values import Picture
from engines.steps import AverageSlabs, EachImage, StackSlices

GAPS = st.lists(st.floats(0.5, 6.0), min_size=1, max_size=20)
STARTS = st.floats(-200, 200)
ORIGINS = ["first_slice", "patient"]


def slabs(thickness_mm: float, origin: Any = "patient", max_slabs: int = 512) -> AverageSlabs:
    return AverageSlabs(
        step="average_slabs", thickness_mm=thickness_mm, origin=origin, max_slabs=max_slabs
    )


def plan(
    positions: Sequence[float | None], step: Any, thickness_mm: float | None = None
) -> tuple[Item, ...]:
    return plan_items(positions, [thickness_mm] * len(positions), step)


def flat(positions: Sequence[float | None], values: Sequence[float]) -> list[Picture]:
    return [
        picture(np.full((2, 3), value), position_mm=position)
        for position, value in zip(positions, values, strict=True)
    ]


def faces_of(positions: Sequence[float]) -> list[float]:
    inner = [(one + other) / 2 for one, other in pairwise(positions)]
    return [2 * positions[0] - inner[0], *inner, 2 * positions[-1] - inner[-1]]


def walked(
    positions: Sequence[float], values: Sequence[float], thickness: float, start: float
) -> list[float]:
    """Definition: walk along the normal from ``start`` and average what each slab holds."""
    faces, means = faces_of(positions), []
    while start < faces[-1]:
        end = start + thickness
        if faces[-1] - end <= 1e-3 * thickness:  # what is left is too thin for a slab of its own
            end = max(end, faces[-1])
        held = [max(0.0, min(high, end) - max(low, start)) for low, high in pairwise(faces)]
        means.append(sum(w * v for w, v in zip(held, values, strict=True)) / sum(held))
        start = end
    return means


@given(gaps=GAPS, start=STARTS, thickness=st.floats(0.7, 20.0), seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("origin", ORIGINS)
def test_slabs_weigh_slices_by_their_overlap(
    gaps: list[float], start: float, thickness: float, seed: int, origin: str
) -> None:
    positions = [start, *(start + np.cumsum(gaps)).tolist()]
    values = np.random.default_rng(seed).uniform(-1000, 2000, len(positions)).tolist()
    first = faces_of(positions)[0]
    index = 0
    if origin == "patient":
        index = math.floor(first / thickness)
        if (index + 1) * thickness - first < 1e-3 * thickness:
            index += 1
        else:
            first = index * thickness
    pictures = flat(positions, values)
    items = plan(positions, slabs(thickness, origin))
    means = [float(average_item(pictures, item)[1, 2]) for item in items]
    np.testing.assert_allclose(means, walked(positions, values, thickness, first), atol=0.01)
    assert [item.index for item in items] == list(range(index, index + len(items)))


@given(gaps=GAPS, start=STARTS, thickness=st.floats(0.7, 20.0))
@hypothesis_settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("origin", ORIGINS)
def test_weights_of_an_item_sum_to_one_and_no_slice_is_left_out(
    gaps: list[float], start: float, thickness: float, origin: str
) -> None:
    positions = [start, *(start + np.cumsum(gaps)).tolist()]
    items = plan(positions, slabs(thickness, origin))
    for item in items:
        assert sum(item.weights) == pytest.approx(1.0)
        assert all(weight > 0 for weight in item.weights)
        assert len(item.weights) == len(item.members)
        assert list(item.members) == sorted(set(item.members))
    assert {member for item in items for member in item.members} == set(range(len(positions)))


@given(gaps=st.lists(st.floats(0.5, 6.0), min_size=6, max_size=12), start=STARTS)
@hypothesis_settings(max_examples=20, deadline=None)
def test_slabs_of_the_patient_stay_when_later_slices_arrive(
    gaps: list[float], start: float
) -> None:
    positions = [start, *(start + np.cumsum(gaps)).tolist()]
    whole = {item.index: item for item in plan(positions, slabs(5.0))}
    for count in range(2, len(positions)):
        settled = (positions[count - 2] + positions[count - 1]) / 2
        for item in plan(positions[:count], slabs(5.0)):
            if (item.index + 1.001) * 5.0 < settled:
                assert item == whole[item.index]


def test_slabs_of_the_patient_lie_at_multiples_of_their_thickness() -> None:
    items = plan([-7.5, -2.5, 2.5, 7.5], slabs(5.0))
    assert [(item.index, item.members) for item in items] == [
        (-2, (0,)),
        (-1, (1,)),
        (0, (2,)),
        (1, (3,)),
    ]
    shifted = plan([-6.0, -1.0, 4.0], slabs(5.0))
    assert [(item.index, item.members) for item in shifted] == [
        (-2, (0,)),
        (-1, (0, 1)),
        (0, (1, 2)),
        (1, (2,)),
    ]
    assert shifted[1].weights == pytest.approx((0.3, 0.7))
    assert shifted[0].weights == (1.0,)


@pytest.mark.parametrize("shift", [-1e-3, -1e-7, 0.0, 1e-7, 1e-3])
@pytest.mark.parametrize("origin", ORIGINS)
def test_slivers_at_the_ends_make_no_slab_of_their_own(origin: str, shift: float) -> None:
    positions = [2.5 + shift, 7.5 + shift, 12.5 + shift]
    items = plan(positions, slabs(5.0, origin))
    assert [item.index for item in items] == [0, 1, 2]
    assert [item.members[-1] for item in items][-1] == 2


def test_series_thinner_than_a_sliver_is_one_slab() -> None:
    for position in (5.0, 4.9999, 5.0001):
        (item,) = plan([position], slabs(5.0), thickness_mm=0.001)
        assert item.members == (0,)
        assert item.weights == (1.0,)


def test_slices_as_thick_as_slabs_stand_alone() -> None:
    positions = [0.1 * index + 0.05 for index in range(100)]
    for origin in ORIGINS:
        items = plan(positions, slabs(0.1, origin))
        assert [item.members for item in items] == [(index,) for index in range(100)]


@pytest.mark.parametrize("thickness", [5.0, None, 0.0, -3.0, float("inf"), float("nan")])
def test_single_slice_is_as_thick_as_its_header_says_or_as_a_slab(thickness: float | None) -> None:
    (item,) = plan([7.0], slabs(5.0, "first_slice"), thickness)
    assert item == Item(index=0, members=(0,), weights=(1.0,))


def test_thick_slice_fills_several_slabs() -> None:
    items = plan([7.0], slabs(5.0, "first_slice"), 12.0)
    assert [item.members for item in items] == [(0,), (0,), (0,)]


@pytest.mark.parametrize("step", [EachImage(step="each_image"), StackSlices(step="stack_slices")])
def test_images_and_slices_stand_for_themselves(step: Any) -> None:
    items = plan([-3.0, 0.0, 3.0], step)
    assert items == tuple(Item(index=index, members=(index,), weights=(1.0,)) for index in range(3))


def test_single_member_is_not_copied() -> None:
    (shown,) = flat([0.0], [3.0])
    alone = Item(index=0, members=(0,), weights=(1.0,))
    assert average_item([shown], alone) is shown.values


def test_pictures_are_ordered_by_position() -> None:
    assert order_pictures(flat([10.0, 0.0, 15.0, -5.0], [0] * 4)) == (3, 1, 0, 2)
    assert order_pictures(flat([5.0, 0.0, 5.0], [0] * 3)) == (1, 0, 2)
    assert order_pictures(flat([None, None], [0] * 2)) == (0, 1)
    assert order_pictures([]) == ()


def test_pictures_of_which_only_some_have_a_position_have_no_order() -> None:
    with pytest.raises(UnfitImagesError) as caught:
        order_pictures(flat([0.0, None], [0] * 2))
    assert caught.value.fault is ImageFault.GEOMETRY_MISSING


SLABS, SLICES = slabs(5.0, max_slabs=8), StackSlices(step="stack_slices", max_slices=3)
IMAGES = EachImage(step="each_image", max_images=3)


@pytest.mark.parametrize(
    ("positions", "step", "fault"),
    [
        ([0.0, 5.0, 5.0], SLABS, ImageFault.DUPLICATE_POSITIONS),
        ([0.0, 5.0, 5.009], SLICES, ImageFault.DUPLICATE_POSITIONS),
        ([0.0, None, 5.0], SLABS, ImageFault.GEOMETRY_MISSING),
        ([0.0, float("nan")], SLABS, ImageFault.GEOMETRY_MISSING),
        ([0.0, float("inf")], SLICES, ImageFault.GEOMETRY_MISSING),
        ([-1e308, 1e308], slabs(5.0, "first_slice"), ImageFault.GEOMETRY_MISSING),
        ([None, None], SLICES, ImageFault.GEOMETRY_MISSING),
        ([0.0, 50.0, 100.0], SLABS, ImageFault.TOO_LARGE),
        ([0.0, 50.0, 100.0], slabs(5.0, "first_slice", 8), ImageFault.TOO_LARGE),
        ([-1e6, 1e6], slabs(1e-3), ImageFault.TOO_LARGE),
        ([0.0, 1.0, 2.0, 3.0], SLICES, ImageFault.TOO_LARGE),
        ([None, None, None, None], IMAGES, ImageFault.TOO_LARGE),
        ([], SLABS, ImageFault.NO_IMAGES),
        ([], SLICES, ImageFault.NO_IMAGES),
        ([], IMAGES, ImageFault.NO_IMAGES),
    ],
)
def test_series_that_make_no_items_are_refused(
    positions: list[float | None], step: Any, fault: ImageFault
) -> None:
    with pytest.raises(UnfitImagesError) as caught:
        plan(positions, step)
    assert caught.value.fault is fault


def test_images_at_one_position_may_stand_for_themselves() -> None:
    assert len(plan([0.0, 0.0], IMAGES)) == 2


@pytest.mark.parametrize(
    "other",
    [
        picture(np.zeros((3, 2)), spacing_mm=(0.4, 0.8)),
        picture(np.zeros((2, 3)), spacing_mm=(0.8, 0.4)),
        picture(np.zeros((2, 3))),
    ],
)
def test_slices_of_different_size_or_spacing_make_no_slab(other: Picture) -> None:
    pictures = [picture(np.zeros((2, 3)), spacing_mm=(0.4, 0.8)), other]
    with pytest.raises(UnfitImagesError) as caught:
        average_item(pictures, Item(index=0, members=(0, 1), weights=(0.5, 0.5)))
    assert caught.value.fault is ImageFault.INCONSISTENT
