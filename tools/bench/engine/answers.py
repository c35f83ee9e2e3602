"""What a runner's process says; lines of JSON in between."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A model was loaded."""

    software: str
    """Version, and what computes."""
    load_s: float
    """Library and model, and the plan where one had to be built."""
    first_s: float
    """The first inference, of one batch of one item."""
    batch: int | None
    """The only one that the model takes; None where any may be."""
    max_absolute: float
    """Largest deviation from the golden outputs."""
    copied_bytes_per_item: int | None
    """To the GPU and back; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A model was run again and again for a while, on one batch."""

    latencies_us: tuple[int, ...]
    """Of every single run, inputs in the host's memory to outputs in the host's memory."""
    wall_s: float
    cpu_s: float
    """Of all threads of the process."""
    streamed_items_per_s: float | None
    """With copies that overlap; None where it is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer in the profile of one batch."""

    name: str
    operator: str
    share: float
    """Of the time of all layers."""
    median_us: float
