"""Data sets that are laid out as one that was walked a moment ago, recognised without a walk.

The images of a series have the same elements in the same order, and nearly all of them the same
lengths. What a walk found in one of them is then known to hold for the next, if all bytes agree but
those of values that nobody asked for, or that are each image's own.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

PIXELS = b"\xe0\x7f\x10\x00"
"""The tag of Pixel Data in little endian: where it stands first, a head may end."""
# A series needs some tens: numbers and positions are written with as many digits as they have.
_MOST_HEADS = 128
_MOST_OF_A_LENGTH = 4


Span: TypeAlias = tuple[int | None, int, int]
"""A value of the top level: its tag, where it begins, and where the next element does. No tag: of
an element whose value nobody asked for. A plain tuple, as there are tens in every walk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Everything before the value of Pixel Data, as one data set had it."""

    implicit_vr: bool
    pixels_at: int
    """Offset of the value of Pixel Data."""
    pixels_length: int
    values: Mapping[int, bytes] = field(repr=False)
    """Tag to raw value."""
    fixed: struct.Struct
    """Takes the bytes that must agree out of a head."""
    expected: tuple[bytes, ...] = field(repr=False)
    own: tuple[tuple[int, int, int], ...]
    """Wanted values that may differ."""

    def values_in(self, block: bytes) -> dict[int, bytes] | None:
        """The values of another data set, or None if it is laid out otherwise."""
        if len(block) < self.pixels_at or self.fixed.unpack_from(block) != self.expected:
            return None
        found = dict(self.values)
        for tag, start, stop in self.own:
            found[tag] = block[start:stop]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A data set that is laid out like one that was walked."""

    head: Head
    values: Mapping[int, bytes] = field(repr=False)


def head_of(
    block: bytes,
    *,
    implicit_vr: bool,
    pixels_at: int,
    pixels_length: int,
    spans: Sequence[Span],
    own_tags: frozenset[int],
) -> Head:
    """Describe a head that was walked.

    Args:
        block: the data set's first bytes, at least up to ``pixels_at``.
        implicit_vr: how it is written.
        pixels_at: offset of the value of Pixel Data.
        pixels_length: of that value.
        spans: the values of the top level, ascending; what lies in none of them must agree.
        own_tags: of values that may differ.
    """
    free = [(start, stop) for tag, start, stop in spans if tag is None or tag in own_tags]
    fixed = struct.Struct("".join(_format(free, pixels_at)))
    # The first of two elements with one tag is the one that counts, and so it was in the walk.
    first = {tag: (start, stop) for tag, start, stop in reversed(spans) if tag is not None}
    return Head(
        implicit_vr=implicit_vr,
        pixels_at=pixels_at,
        pixels_length=pixels_length,
        values={tag: block[start:stop] for tag, (start, stop) in first.items()},
        fixed=fixed,
        expected=fixed.unpack_from(block),
        own=tuple((tag, *place) for tag, place in first.items() if tag in own_tags),
    )


def _format(free: Sequence[tuple[int, int]], end: int) -> list[str]:
    parts, position = ["<"], 0
    for start, stop in free:
        parts.append(f"{start - position}s{stop - start}x")
        position = stop
    parts.append(f"{end - position}s")
    return parts


class Lookalikes:
    """The heads that were met last; a few tens of kilobytes each at most."""

    def __init__(self, own_tags: frozenset[int], *, most: int = _MOST_HEADS) -> None:
        """Begin with none.

        Args:
            own_tags: whose values are each image's own.
            most: lengths of heads that are remembered, each with some heads.
        """
        self.own_tags = own_tags
        self._most = most
        self._heads: dict[int, tuple[Head, ...]] = {}
        self._lock = threading.Lock()

    def find(self, block: bytes, *, implicit_vr: bool) -> Recognised | None:
        """What a data set's first bytes say, if they are laid out like a head that is known."""
        place = block.find(PIXELS)
        for head in self._heads.get(place, ()):
            if head.implicit_vr == implicit_vr:
                values = head.values_in(block)
                if values is not None:
                    return Recognised(head=head, values=values)
        return None

    def add(self, block: bytes, head: Head) -> None:
        """Remember a head; the oldest ones are forgotten."""
        place = block.find(PIXELS)
        with self._lock:
            known = self._heads.pop(place, ())
            self._heads[place] = (head, *known)[:_MOST_OF_A_LENGTH]
            while len(self._heads) > self._most:
                del self._heads[next(iter(self._heads))]
