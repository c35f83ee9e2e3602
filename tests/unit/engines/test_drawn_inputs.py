"""Random inputs are like the golden ones, and the same at every start."""

from __future__ import annotations

import numpy as np
import pytest

from engines.drawn_inputs import FEWEST, MOST_BYTES, draw_inputs
from engines.package import InputRule, Layout


def rule_of(layout: Layout) -> InputRule:
    return InputRule(name="x", dtype="float32", shape=(-1,) * len(layout.value), layout=layout)


def golden_of(layout: Layout, items: int = 4) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Channel 0 lies between -1 and 1, channel 1 between 5 and 6."""
    sizes = {"N": items, "C": 2, "D": 5, "H": 16, "W": 12}
    array = np.random.default_rng(5).random([sizes[axis] for axis in layout.value])
    channels = np.moveaxis(array, layout.value.index("C"), 0)
    channels[0] = channels[0] * 2 - 1
    channels[1] += 5
    return array.astype(np.float32)


@pytest.mark.parametrize("layout", list(Layout))
def test_they_lie_within_the_golden_range_of_each_channel(layout: Layout) -> None:
    golden = golden_of(layout)
    drawn = draw_inputs(golden, rule_of(layout), count=30, seed=3)
    assert drawn.shape == (30, *golden.shape[1:])
    assert drawn.dtype == np.float32
    assert drawn.flags.c_contiguous
    place = layout.value.index("C")
    for channel in range(2):
        ours, theirs = (array.take(channel, axis=place) for array in (drawn, golden))
        assert theirs.min() <= ours.min() < ours.max() <= theirs.max()
        assert ours.std() > 0.1 * theirs.std()


def test_the_seed_decides_them() -> None:
    golden = golden_of(Layout.NCHW)
    first, again, other = (
        draw_inputs(golden, rule_of(Layout.NCHW), count=9, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_two_are_the_same() -> None:
    drawn = draw_inputs(golden_of(Layout.NCHW), rule_of(Layout.NCHW), count=30, seed=1)
    assert len({item.tobytes() for item in drawn}) == 30


def test_large_ones_are_fewer_but_of_every_kind() -> None:
    item_bytes = MOST_BYTES // 5
    golden = np.random.default_rng(1).random((1, 1, item_bytes // 4096, 1024), dtype=np.float32)
    assert len(draw_inputs(golden, rule_of(Layout.NCHW), count=100, seed=1)) == 5
    larger = np.broadcast_to(golden, (1, 4, *golden.shape[2:]))
    assert len(draw_inputs(larger, rule_of(Layout.NCHW), count=100, seed=1)) == FEWEST


def test_golden_inputs_without_contrast_give_inputs_without_contrast() -> None:
    golden = np.full((1, 1, 4, 4), 0.25, np.float32)
    drawn = draw_inputs(golden, rule_of(Layout.NCHW), count=6, seed=1)
    assert (drawn == 0.25).all()


def test_golden_inputs_are_not_changed() -> None:
    golden = golden_of(Layout.NCHW)
    golden.flags.writeable = False
    draw_inputs(golden, rule_of(Layout.NCHW), count=6, seed=1)
