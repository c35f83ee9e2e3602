"""Which packages the fused kernel can serve, and what it has to do for them.

Pure: a package's steps in, a plan or a reason out. What is not served here takes the way of
``engines.preprocessing``; both end in the same input, within rounding:

* Everything but the sums of a grid is the same float32 or float64 operation on the same numbers.
* A grid's sums of ``r`` pixels of a column and ``c`` pixels of a row are the same ones, added in
  another order: both lie within ``(r + c + 2) * 2**-24 * M`` of the exact sum, and so within twice
  that of each other. ``M`` is the largest distance of a value from the fill, plus the fill's size.
* What follows carries this on: a mean keeps it, a window divides it by its width, a map by
  percentiles or deviation by what they span. The kernel's sums for a deviation are made row by row,
  in float64 as the other ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from engines.package import Layout, ModelPackage
from engines.preprocessing.running import fill_ahead
from engines.steps import (
    CanonicalOrientation,
    InvertMonochrome1,
    Letterbox,
    Neighbours,
    Part,
    PercentileNormalise,
    PreprocessStep,
    RepeatChannels,
    ResampleInPlane,
    Rescale,
    Resize,
    ScaleRange,
    Standardise,
    WindowChannels,
    ZscoreNormalise,
    parts_of,
)

Grid: TypeAlias = ResampleInPlane | Resize | Letterbox
ValueStep: TypeAlias = ScaleRange | PercentileNormalise | ZscoreNormalise

MOST_OPS = 4
"""Of one channel; the kernel keeps room for so many."""


class OpKind(Enum):
    """What is done to a channel's values; numbered as in ``layout.h``."""

    WINDOW = 0
    """Minus the first number, times the second, within 0 and 1."""
    STANDARDISE = 1
    """Minus the first number, over the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation on a channel's values."""

    kind: OpKind
    first: float
    second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPlan:
    """One channel of the model's input."""

    offset: int = 0
    """Which neighbour of the item it shows."""
    ops: tuple[Op, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedPlan:
    """What the kernel does for a package."""

    steps: tuple[PreprocessStep, ...]
    layout: Layout
    rescale: Rescale
    turn: CanonicalOrientation | None
    inverts: bool
    grid: Grid
    minus: float
    """What the rescale takes off, so that the grid's fill lies at 0 (``Picture.minus``)."""
    maps: tuple[ValueStep, ...]
    """Of each picture, behind the grid."""
    collect: PreprocessStep
    channels: tuple[ChannelPlan, ...]

    @property
    def radius(self) -> int:
        """How many items on each side an item's input rests on."""
        return max(abs(channel.offset) for channel in self.channels)

    def input_shape(self, items: int) -> tuple[int, ...]:
        """Shape of the model's input of so many items."""
        sizes = {
            "N": 1 if self.layout.is_volume else items,
            "D": items,
            "C": len(self.channels),
            "H": self.grid.rows,
            "W": self.grid.columns,
        }
        return tuple(sizes[axis] for axis in self.layout.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFused:
    """The kernel does not serve a package."""

    reason: str
    """A sentence about its steps."""


def fusable(package: ModelPackage) -> FusedPlan | NotFused:
    """Says whether the kernel serves a package, and how."""
    return fused(package.preprocess, package.input.layout)


def fused(steps: Sequence[PreprocessStep], layout: Layout) -> FusedPlan | NotFused:
    """The same of steps and a layout."""
    parts = parts_of(steps)
    if parts[Part.STACK]:
        return NotFused(reason=f"{parts[Part.STACK][0].step} needs the whole stack at once")
    ahead, behind = _around_grid(parts[Part.IMAGE])
    grid = behind[0] if behind else None
    if not isinstance(grid, (ResampleInPlane, Resize, Letterbox)):
        return NotFused(reason="no grid of a fixed size stands directly behind the turn")
    maps = tuple(
        step
        for step in behind[1:]
        if isinstance(step, (ScaleRange, PercentileNormalise, ZscoreNormalise))
    )
    if len(maps) < len(behind) - 1:
        return NotFused(reason="a second step behind the grid changes the picture's size")
    channels = _channels_of(parts[Part.CHANNELS])
    if isinstance(channels, NotFused):
        return channels
    rescale = parts[Part.STORED][0]
    assert isinstance(rescale, Rescale)  # noqa: S101 - the one step of its part
    turns = [step for step in ahead if isinstance(step, CanonicalOrientation)]
    return FusedPlan(
        steps=tuple(steps),
        layout=layout,
        rescale=rescale,
        turn=turns[0] if turns else None,
        inverts=any(isinstance(step, InvertMonochrome1) for step in ahead),
        grid=grid,
        minus=fill_ahead(parts[Part.IMAGE]),
        maps=maps,
        collect=parts[Part.COLLECT][0],
        channels=channels,
    )


def _around_grid(
    steps: Sequence[PreprocessStep],
) -> tuple[Sequence[PreprocessStep], Sequence[PreprocessStep]]:
    for place, step in enumerate(steps):
        if not isinstance(step, (InvertMonochrome1, CanonicalOrientation)):
            return steps[:place], steps[place:]
    return steps, ()


def _channels_of(steps: Sequence[PreprocessStep]) -> tuple[ChannelPlan, ...] | NotFused:
    channels: tuple[ChannelPlan, ...] = (ChannelPlan(),)
    for step in steps:
        if isinstance(step, Neighbours) and any(channel.offset for channel in channels):
            return NotFused(reason="neighbours of neighbours are more than one step away")
        channels = _channels_after(step, channels)
    if max(len(channel.ops) for channel in channels) > MOST_OPS:
        return NotFused(reason=f"more than {MOST_OPS} steps change the values of a channel")
    return channels


def _channels_after(
    step: PreprocessStep, channels: tuple[ChannelPlan, ...]
) -> tuple[ChannelPlan, ...]:
    if isinstance(step, WindowChannels):
        ops = [
            Op(kind=OpKind.WINDOW, first=window.low, second=1.0 / (window.high - window.low))
            for window in step.windows
        ]
        return tuple(_with_op(channels[0], op) for op in ops)
    if isinstance(step, RepeatChannels):
        return channels * step.times
    if isinstance(step, Standardise):
        pairs = zip(step.mean, step.deviation, strict=True)
        ops = [Op(kind=OpKind.STANDARDISE, first=mean, second=over) for mean, over in pairs]
        return tuple(_with_op(channel, op) for channel, op in zip(channels, ops, strict=True))
    if isinstance(step, Neighbours):
        offsets = range(-step.radius, step.radius + 1)
        return tuple(replace(channel, offset=each) for each in offsets for channel in channels)
    raise TypeError(f"{step.step} makes no channels")


def _with_op(channel: ChannelPlan, op: Op) -> ChannelPlan:
    return replace(channel, ops=(*channel.ops, op))
