"""For which shapes an engine is built."""

from __future__ import annotations

from dataclasses import dataclass

from engines.contract import FREE
from engines.package import InputRule

MOST_SLICES = 256
"""Of a model that takes a whole stack of any depth as one item: what a CT has after resampling to
millimetres. Each build reserves memory for the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRange:
    """The shapes that one input may have.

    Attributes:
        name: The input's.
        least: The smallest shape; at least 1 along every axis.
        best: For which the engine is made fast.
        most: The largest shape.
    """

    name: str
    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.least) == len(self.best) == len(self.most):
            raise ValueError(f"profile of {self.name!r}: shapes have different numbers of axes")
        for least, best, most in zip(self.least, self.best, self.most, strict=True):
            # The vendor takes 0, and the engine then fails when it runs.
            if not 1 <= least <= best <= most:
                raise ValueError(
                    f"profile of {self.name!r}: {least} <= {best} <= {most} does not hold, or is "
                    "less than 1"
                )

    @property
    def is_fixed(self) -> bool:
        """Whether only one shape is allowed."""
        return self.least == self.most

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Whether an input may have this shape."""
        return len(shape) == len(self.least) and all(
            least <= size <= most
            for least, size, most in zip(self.least, shape, self.most, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The shapes of all inputs that go together."""

    ranges: tuple[ShapeRange, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether only one shape of each input is allowed."""
        return all(each.is_fixed for each in self.ranges)


def profiles_of(
    rule: InputRule, most_items: int, *, fixed: bool = False, most_slices: int = MOST_SLICES
) -> tuple[Profile, ...]:
    """Returns the profiles for a package's input.

    A single image is what waits most often, and a full batch what takes longest: a free batch gets
    a profile for exactly one item, and one for all numbers that is fast at the most.

    Args:
        rule: The package's.
        most_items: Of one batch, where the batch is free.
        fixed: One shape only, with the most: what a DLA asks for.
        most_slices: Along an axis other than the batch, where that is free.

    Returns:
        None for an input of one shape; else one or two, the narrowest first.

    Raises:
        ValueError: A bound is less than 1.
    """
    if FREE not in rule.shape:
        return ()
    most = tuple(
        size if size != FREE else most_items if axis == "N" else most_slices
        for axis, size in zip(rule.layout.value, rule.shape, strict=True)
    )
    return profiles_between(rule.name, rule.shape, most, fixed=fixed)


def profiles_between(
    name: str, shape: tuple[int, ...], most: tuple[int, ...], *, fixed: bool = False
) -> tuple[Profile, ...]:
    """Returns the profiles for an input whose first axis is the batch, as ``profiles_of`` does.

    Args:
        name: The input's.
        shape: With ``FREE`` axes.
        most: The largest shape.
        fixed: One shape only, the largest.

    Raises:
        ValueError: A bound is less than 1.
    """
    if FREE not in shape:
        return ()
    if fixed:
        return (_profile(name, most, most, most),)
    least = tuple(1 if size == FREE else size for size in shape)
    widest = _profile(name, least, most, most)
    has_only_free_batch = shape.count(FREE) == 1 and shape[0] == FREE
    if has_only_free_batch and most[0] > 1:
        return (_profile(name, least, least, least), widest)
    return (widest,)


def _profile(
    name: str, least: tuple[int, ...], best: tuple[int, ...], most: tuple[int, ...]
) -> Profile:
    return Profile(ranges=(ShapeRange(name=name, least=least, best=best, most=most),))
