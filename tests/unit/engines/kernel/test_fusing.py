"""Which packages the kernel serves: what it has to do, or the reason why not."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.fused import plan_of
from simulators.reference_images import steps_of

from engines.kernel.fusing import ChannelPlan, NotFused, OpKind, fusable, fused
from engines.loading import load_package
from engines.package import Layout
from engines.shipped import shipped_packages
from engines.steps import prepared_shape

RESCALE = {"step": "rescale", "padding": -1000.0}
INVERT = {"step": "invert_monochrome1"}
TURN = {"step": "canonical_orientation"}
RESIZE = {"step": "resize", "rows": 12, "columns": 10}
PERCENT = {"step": "percentile_normalise", "percentiles": [1, 99]}
SCALE = {"step": "scale_range", "source": [0, 1], "target": [0, 1]}
FOREGROUND = {"step": "crop_to_foreground", "above": 0}
PAD = {"step": "crop_or_pad", "rows": 8, "columns": 8, "fill": 0}
IMAGES = {"step": "each_image"}
WINDOWS = {"step": "window_channels", "windows": [{"low": 0, "high": 80}, {"low": 0, "high": 8}]}
NEIGHBOURS = {"step": "neighbours", "radius": 1}
STANDARD = {"step": "standardise", "mean": [0.5, 0.25], "deviation": [0.1, 0.2]}


def test_every_shipped_package_is_served() -> None:
    packages = [load_package(path).manifest for path in shipped_packages().values()]
    assert len(packages) >= 2
    assert not [package.name for package in packages if isinstance(fusable(package), NotFused)]


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([RESCALE, IMAGES], "no grid"),
        ([RESCALE, SCALE, RESIZE, IMAGES], "no grid"),
        ([RESCALE, FOREGROUND, RESIZE, IMAGES], "no grid"),
        ([RESCALE, PAD, IMAGES], "no grid"),
        ([RESCALE, RESIZE, PAD, IMAGES], "size"),
        ([RESCALE, RESIZE, RESIZE, IMAGES], "size"),
        ([RESCALE, RESIZE, FOREGROUND, IMAGES], "size"),
        ([RESCALE, RESIZE, IMAGES, SCALE], "scale_range needs the whole stack"),
        ([RESCALE, RESIZE, IMAGES, {"step": "zscore_normalise"}], "whole stack"),
        ([RESCALE, RESIZE, IMAGES, NEIGHBOURS, NEIGHBOURS], "neighbours"),
        ([RESCALE, RESIZE, IMAGES, WINDOWS, *[STANDARD] * 4], "more than 4"),
    ],
)
def test_what_is_not_served_has_a_reason(tables: list[dict[str, Any]], words: str) -> None:
    answer = fused(steps_of(*tables), Layout.NCHW)
    assert isinstance(answer, NotFused)
    assert words in answer.reason


def test_neighbours_of_none_may_follow_each_other() -> None:
    none = {"step": "neighbours", "radius": 0}
    plan = plan_of(steps_of(RESCALE, RESIZE, IMAGES, none, NEIGHBOURS))
    assert [channel.offset for channel in plan.channels] == [-1, 0, 1]
    assert plan.radius == 1


def test_channels_stand_in_the_order_of_the_steps() -> None:
    plan = plan_of(steps_of(RESCALE, RESIZE, IMAGES, WINDOWS, NEIGHBOURS))
    assert [(channel.offset, channel.ops[0].second) for channel in plan.channels] == [
        (-1, 1 / 80),
        (-1, 1 / 8),
        (0, 1 / 80),
        (0, 1 / 8),
        (1, 1 / 80),
        (1, 1 / 8),
    ]
    repeated = plan_of(
        steps_of(RESCALE, RESIZE, IMAGES, NEIGHBOURS, {"step": "repeat_channels", "times": 2})
    )
    assert [channel.offset for channel in repeated.channels] == [-1, 0, 1, -1, 0, 1]


def test_every_channel_has_its_own_numbers() -> None:
    plan = plan_of(steps_of(RESCALE, RESIZE, IMAGES, WINDOWS, STANDARD))
    assert [channel.ops[1].first for channel in plan.channels] == [0.5, 0.25]
    assert [channel.ops[1].second for channel in plan.channels] == [0.1, 0.2]
    assert {channel.ops[1].kind for channel in plan.channels} == {OpKind.STANDARDISE}


def test_plain_pictures_are_one_channel() -> None:
    plan = plan_of(steps_of(RESCALE, INVERT, TURN, RESIZE, PERCENT, SCALE, IMAGES))
    assert plan.channels == (ChannelPlan(),)
    assert plan.inverts
    assert plan.turn is not None
    assert [step.step for step in plan.maps] == ["percentile_normalise", "scale_range"]


@pytest.mark.parametrize("layout", list(Layout))
def test_shapes_are_those_that_the_schema_promises(layout: Layout) -> None:
    steps = steps_of(RESCALE, RESIZE, IMAGES, WINDOWS, NEIGHBOURS)
    promised = prepared_shape(steps)
    sizes = {"N": 1 if layout.is_volume else 7, "D": 7, "C": promised.channels, "H": 12, "W": 10}
    assert plan_of(steps, layout).input_shape(7) == tuple(sizes[axis] for axis in layout.value)
