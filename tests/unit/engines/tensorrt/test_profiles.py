"""Shapes that an engine is built for."""

from __future__ import annotations

import pytest

from engines.package import InputRule, Layout
from engines.tensorrt.profiles import Profile, ShapeRange, profiles_of


def rule(shape: tuple[int, ...], layout: Layout = Layout.NCHW) -> InputRule:
    return InputRule(name="slabs", dtype="float32", shape=shape, layout=layout)


def shapes(profile: Profile) -> tuple[tuple[int, ...], ...]:
    (each,) = profile.ranges
    return each.least, each.best, each.most


def test_a_fixed_input_needs_no_profile() -> None:
    assert profiles_of(rule((4, 9, 112, 112)), 32) == ()


def test_a_free_batch_gets_one_profile_for_a_single_item_and_one_for_all_numbers() -> None:
    single, wide = profiles_of(rule((-1, 9, 112, 112)), 32)
    item, most = (1, 9, 112, 112), (32, 9, 112, 112)
    assert shapes(single) == (item, item, item)
    assert shapes(wide) == (item, most, most)
    assert single.is_fixed
    assert not wide.is_fixed


def test_a_batch_of_at_most_one_gets_one_profile() -> None:
    (only,) = profiles_of(rule((-1, 9, 8, 8)), 1)
    assert shapes(only) == ((1, 9, 8, 8),) * 3


def test_a_dla_gets_one_shape() -> None:
    (only,) = profiles_of(rule((-1, 9, 8, 8)), 16, fixed=True)
    assert only.is_fixed
    assert shapes(only)[0] == (16, 9, 8, 8)


def test_a_stack_of_any_depth_gets_one_profile_up_to_the_most_slices() -> None:
    (only,) = profiles_of(rule((1, 1, -1, 64, 64), Layout.NCDHW), 8, most_slices=100)
    assert shapes(only) == ((1, 1, 1, 64, 64), (1, 1, 100, 64, 64), (1, 1, 100, 64, 64))


def test_the_channels_may_come_last() -> None:
    _, wide = profiles_of(rule((-1, 8, 8, 3), Layout.NHWC), 5)
    assert shapes(wide)[2] == (5, 8, 8, 3)


@pytest.mark.parametrize(
    ("least", "best", "most"),
    [((0,), (1,), (1,)), ((2,), (1,), (3,)), ((1,), (4,), (3,)), ((-1,), (1,), (1,))],
    ids=["nothing", "best below least", "best above most", "negative"],
)
def test_sizes_that_the_vendor_takes_or_breaks_on_cannot_be_asked_for(
    least: tuple[int, ...], best: tuple[int, ...], most: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        ShapeRange(name="x", least=least, best=best, most=most)


def test_shapes_of_a_range_have_as_many_axes() -> None:
    with pytest.raises(ValueError, match="different numbers of axes"):
        ShapeRange(name="x", least=(1,), best=(1, 1), most=(1, 1))


def test_no_items_at_all_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        profiles_of(rule((-1, 9, 8, 8)), 0)


def test_a_range_allows_what_lies_within_it() -> None:
    allowed = ShapeRange(name="x", least=(1, 3), best=(4, 3), most=(8, 3))
    assert all(allowed.allows((items, 3)) for items in (1, 4, 8))
    assert not any(allowed.allows(shape) for shape in ((0, 3), (9, 3), (4, 2), (4,), (4, 3, 1)))
