"""What a drawn chest radiograph shows, as numbers that a seed decides. Pure.

Coordinates are fractions of the picture's height: ``x`` to the right of its middle, ``y`` down
from its top. The child faces the viewer: its right lung is on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np


class OpacityKind(str, Enum):
    """Kind of a drawn opacity."""

    LOBAR = "lobar"
    """One dense, soft-edged field."""
    PATCHY = "patchy"
    """Several fields in both lungs."""
    INTERSTITIAL = "interstitial"
    """A fine net over both lungs, densest at the hila."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """An ellipse with a soft edge."""

    x: float
    y: float
    half_width: float
    half_height: float
    density: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OpacitySpec:
    """What is wrong with the lungs."""

    kind: OpacityKind
    blobs: tuple[Blob, ...]
    net: float
    """Density of the fine net; 0 without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestSpec:
    """One drawn radiograph."""

    seed: int
    lung_half_width: float
    lung_top: float
    lung_bottom: float
    lung_gap: float
    """From the middle to the inner edge of a lung."""
    lung_density: float
    """Of healthy lung, against 1 for the soft tissue around it."""
    dome_lift: float
    """How much higher the right dome of the diaphragm stands."""
    heart: Blob
    ribs: int
    rib_density: float
    rib_slope: float
    spine_density: float
    vessels: float
    stomach_gas: bool
    turn_deg: float
    shift_x: float
    collimation: float
    """Width of the black border left and right; 0 without one."""
    letter: bool
    """A side mark at the border."""
    noise: float
    blur: float
    """Of the focal spot and the grid, as a fraction of the height."""
    opacity: OpacitySpec | None


def draw_chest_spec(
    seed: int, *, opacity: OpacityKind | None = None, positive: bool = False
) -> ChestSpec:
    """The radiograph that belongs to a seed.

    Args:
        seed: decides everything else.
        opacity: the kind that the lungs show.
        positive: with an opacity, whose kind the seed chooses when ``opacity`` is None.
    """
    rng = np.random.default_rng([seed, 21])
    kinds = tuple(OpacityKind)
    chosen = kinds[int(rng.integers(len(kinds)))]
    kind = opacity or (chosen if positive else None)
    bottom = float(rng.uniform(0.7, 0.76))
    half_width = float(rng.uniform(0.16, 0.18))
    gap = float(rng.uniform(0.035, 0.05))
    return ChestSpec(
        seed=seed,
        lung_half_width=half_width,
        lung_top=float(rng.uniform(0.1, 0.14)),
        lung_bottom=bottom,
        lung_gap=gap,
        lung_density=float(rng.uniform(0.32, 0.42)),
        dome_lift=float(rng.uniform(0.015, 0.045)),
        heart=Blob(
            x=float(rng.uniform(0.045, 0.07)),
            y=bottom - float(rng.uniform(0.13, 0.17)),
            half_width=float(rng.uniform(0.1, 0.12)),
            half_height=float(rng.uniform(0.15, 0.19)),
            density=float(rng.uniform(0.2, 0.28)),
        ),
        ribs=int(rng.integers(10, 12)),
        rib_density=float(rng.uniform(0.35, 0.45)),
        rib_slope=float(rng.uniform(0.22, 0.34)),
        spine_density=float(rng.uniform(0.18, 0.28)),
        vessels=float(rng.uniform(0.03, 0.06)),
        stomach_gas=bool(rng.random() < 0.4),
        turn_deg=float(rng.uniform(-4, 4)),
        shift_x=float(rng.uniform(-0.03, 0.03)),
        collimation=float(rng.uniform(0.02, 0.06)) if rng.random() < 0.3 else 0.0,
        letter=bool(rng.random() < 0.8),
        noise=float(rng.uniform(0.008, 0.02)),
        blur=float(rng.uniform(0.0015, 0.003)),
        opacity=None if kind is None else _draw_opacity(rng, kind, half_width, gap, bottom),
    )


def _draw_opacity(
    rng: np.random.Generator, kind: OpacityKind, half_width: float, gap: float, bottom: float
) -> OpacitySpec:
    centre = gap + half_width
    side = float(rng.choice((-1.0, 1.0)))
    if kind is OpacityKind.LOBAR:
        field = _blob(rng, side * centre, bottom - 0.16, size=1.8, density=1.0)
        return OpacitySpec(kind=kind, blobs=(field,), net=0.1)
    if kind is OpacityKind.PATCHY:
        blobs = tuple(
            _blob(rng, where * centre, bottom - rise, size=1.15, density=0.75)
            for where, rise in ((-0.9, 0.12), (1.0, 0.2), (-1.0, 0.36), (0.9, 0.4))
        )
        return OpacitySpec(kind=kind, blobs=blobs, net=0.15)
    blobs = tuple(
        _blob(rng, where * centre * 0.8, bottom - 0.28, size=1.9, density=0.5)
        for where in (-1.0, 1.0)
    )
    return OpacitySpec(kind=kind, blobs=blobs, net=0.35)


def _blob(rng: np.random.Generator, x: float, y: float, *, size: float, density: float) -> Blob:
    return Blob(
        x=x + float(rng.uniform(-0.02, 0.02)),
        y=y + float(rng.uniform(-0.04, 0.04)),
        half_width=size * float(rng.uniform(0.07, 0.1)),
        half_height=size * float(rng.uniform(0.08, 0.12)),
        density=density * float(rng.uniform(0.85, 1.15)),
    )
