"""Draws frontal chest radiographs of children that never were: lungs, ribs, heart, opacities.

Everything in front of the film adds to one density, as it does for X-rays: body, spine, ribs,
heart, vessels, and what fills the lungs. The picture is that density, so larger is brighter
(MONOCHROME2). It looks like a chest to a network and to somebody who does not look twice. It is
no anatomy: it serves examples, golden inputs, tests and demonstrations, and measures nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.phantoms.chest_spec import Blob, ChestSpec

Float32 = NDArray[np.float32]
Field = NDArray[np.floating[Any]]
"""A number at each pixel, on its way to becoming Float32."""

MIN_SIDE, MAX_SIDE = 64, 4096
SOFT_EDGE = 0.006
"""Width of an organ's edge, as a fraction of the height."""
RIB_HALF_WIDTH = 0.014
SLAB_DENSITY = 0.55
"""Of the abdomen against 1 for everything else together."""
FILM = 1.6
"""How steeply the film's curve rises from air."""
# An R on a grid of five by seven.
_LETTER = ("1110", "1001", "1001", "1110", "1010", "1001", "1001")
LETTER_DENSITY = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestPicture:
    """A drawn radiograph and its truth."""

    density: Float32
    """(rows, columns), 0 to 1, larger is denser and brighter."""
    lungs: Float32
    """(rows, columns), 0 to 1: how much of the pixel is lung."""
    opacity: Float32
    """(rows, columns): density that the opacity added; all 0 without one."""


def draw_chest(spec: ChestSpec, *, rows: int = 512, columns: int = 512) -> ChestPicture:
    """Draw a radiograph.

    Args:
        spec: what to draw.
        rows, columns: size in pixels, 64 to 4096; a picture that is not square shows more or less
            beside the chest.

    Raises:
        ValueError: the size is out of bounds.
    """
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (rows, columns)):
        raise ValueError(f"rows and columns must be {MIN_SIDE} to {MAX_SIDE}")
    x, y = _coordinates(spec, rows, columns)
    lungs = _lungs(spec, x, y)
    opacity = _opacity(spec, x, y, lungs)
    density = _body(spec, x, y)
    density *= 1 - lungs * np.float32(1 - spec.lung_density)
    density += _bones(spec, x, y) + _middle(spec, x, y) + opacity
    density += lungs * np.float32(spec.vessels) * _vessels(spec, x, y)
    density = _blurred(density, spec.blur * rows)
    density = _framed(spec, density)
    rng = np.random.default_rng([spec.seed, 22])
    density += rng.normal(0, spec.noise, density.shape).astype(np.float32)
    # The film's curve: the densest parts come together.
    density = np.clip(density, 0, None)
    return ChestPicture(
        density=np.clip(1 - np.exp(-FILM * density), 0, 1).astype(np.float32),
        lungs=lungs,
        opacity=opacity,
    )


def _coordinates(spec: ChestSpec, rows: int, columns: int) -> tuple[Float32, Float32]:
    y, x = np.meshgrid(
        (np.arange(rows, dtype=np.float32) + 0.5) / rows,
        (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) / rows,
        indexing="ij",
    )
    turn = np.deg2rad(np.float32(spec.turn_deg))
    x = x - np.float32(spec.shift_x)
    turned_x = x * np.cos(turn) + (y - 0.5) * np.sin(turn)
    turned_y = (y - 0.5) * np.cos(turn) - x * np.sin(turn) + 0.5
    return _narrow(turned_x), _narrow(turned_y)


def _step(value: Field, width: float = SOFT_EDGE) -> Float32:
    """0 where ``value`` is well below 0, 1 well above, smooth between."""
    return _narrow(0.5 + 0.5 * np.tanh(value / np.float32(width)))


def _narrow(field: Field) -> Float32:
    return np.asarray(field, np.float32)


def _ellipse(blob: Blob, x: Float32, y: Float32, power: float = 2.0) -> Float32:
    """Distance in units of the ellipse: below 1 within."""
    across = np.abs((x - np.float32(blob.x)) / np.float32(blob.half_width))
    along = np.abs((y - np.float32(blob.y)) / np.float32(blob.half_height))
    return _narrow(across**power + along**power)


def _body(spec: ChestSpec, x: Float32, y: Float32) -> Float32:
    """Trunk, neck and shoulders: thick in the middle, thin at the sides."""
    waist = spec.lung_gap + 2 * spec.lung_half_width + 0.05
    half = np.float32(waist) + 0.03 * np.sin(3 * y)
    trunk = _step(half - np.abs(x), 0.02) * np.sqrt(np.clip(1 - (x / (half * 1.25)) ** 2, 0.05, 1))
    above = _step(np.float32(spec.lung_top - 0.05) - y + 0.3 * np.abs(x), 0.03)
    neck = _step(np.float32(0.1) - np.abs(x), 0.02)
    arm = _ellipse(Blob(x=0.52, y=0.12, half_width=0.28, half_height=0.11, density=0), np.abs(x), y)
    return _narrow(trunk * (1 - 0.9 * above * (1 - neck)) + 0.45 * _step(1 - arm, 0.15))


def _dome(spec: ChestSpec, x: Float32) -> Float32:
    """Height of the diaphragm at each ``x``."""
    centre = spec.lung_gap + spec.lung_half_width
    away = (np.abs(x) - np.float32(centre)) / np.float32(spec.lung_half_width)
    lift = np.where(x < 0, np.float32(spec.dome_lift), np.float32(0))
    return _narrow(spec.lung_bottom - lift + 0.05 * away**2)


def _lungs(spec: ChestSpec, x: Float32, y: Float32) -> Float32:
    """Both lungs: narrow at the top, cut by the diaphragm below."""
    down = np.clip((y - spec.lung_top) / (spec.lung_bottom - spec.lung_top), 0, 1.2)
    outer = spec.lung_gap + 2 * spec.lung_half_width * np.sqrt(np.clip(down, 0.0, 1.0)) ** 0.75
    inner = np.float32(spec.lung_gap) * (0.7 + 0.3 * down)
    side = _step(outer - np.abs(x)) * _step(np.abs(x) - inner)
    top = _step(y - np.float32(spec.lung_top), 0.02)
    return _narrow(side * top * _step(_dome(spec, x) - y, 0.008))


def _bones(spec: ChestSpec, x: Float32, y: Float32) -> Float32:
    """Ribs, collar bones and spine; a rib is brighter at its edges than in its middle."""
    bones = np.zeros_like(x)
    height = spec.lung_bottom - spec.lung_top
    reach = spec.lung_gap + 2 * spec.lung_half_width + 0.03
    away = np.abs(x)
    cage = _step(np.float32(reach) - away, 0.015)
    for number in range(spec.ribs):
        start = spec.lung_top - 0.02 + height * number / (spec.ribs - 1)
        bend = np.clip(away - 0.2, 0, None)
        back = start + np.float32(spec.rib_slope) * (away - 0.05) + 3.2 * bend**2
        bones += _rib(y - back) * cage
        front = start + 0.16 - 0.45 * (away - 0.1) + 1.6 * bend**2
        bones += 0.45 * _rib(y - front) * cage * _step(away - np.float32(0.1), 0.02)
    collar = spec.lung_top + 0.04 - 0.22 * (away - 0.05)
    bones += 1.6 * _rib(y - collar) * _step(away - np.float32(0.05)) * _step(0.33 - away)
    spine = _step(np.float32(0.035) - away, 0.01)
    discs = 1 - 0.25 * (np.cos(y * np.float32(2 * np.pi * 18)) > 0.75)
    return _narrow(np.float32(spec.rib_density) * bones + spec.spine_density * spine * discs)


def _rib(distance: Field) -> Float32:
    size = np.abs(distance) / np.float32(RIB_HALF_WIDTH)
    return _narrow(_step(1 - size, 0.12) * (0.45 + 0.55 * np.clip(size, 0, 1) ** 3))


def _middle(spec: ChestSpec, x: Float32, y: Float32) -> Float32:
    """Heart, great vessels, and the abdomen below the diaphragm."""
    heart = _step(1 - _ellipse(spec.heart, x, y), 0.12) * np.float32(spec.heart.density)
    trunk = _step(np.float32(0.075) - np.abs(x - 0.01), 0.012) * np.float32(0.25)
    trunk *= _step(y - np.float32(spec.lung_top - 0.1), 0.05)
    belly = _step(y - _dome(spec, x), 0.008)
    belly *= np.float32(SLAB_DENSITY) * _step(np.float32(0.4) - np.abs(x), 0.04)
    if spec.stomach_gas:
        gas = Blob(x=0.17, y=spec.lung_bottom + 0.08, half_width=0.07, half_height=0.04, density=0)
        belly *= 1 - 0.7 * _step(1 - _ellipse(gas, x, y), 0.15)
    return _narrow(heart * (1 - 0.5 * belly) + trunk + belly)


def _vessels(spec: ChestSpec, x: Float32, y: Float32) -> Float32:
    """Branches that run outwards from the hila and fade."""
    rng = np.random.default_rng([spec.seed, 23])
    total = np.zeros_like(x)
    hilum_y = spec.lung_top + 0.5 * (spec.lung_bottom - spec.lung_top)
    for side in (-1.0, 1.0):
        across = side * x - np.float32(spec.lung_gap)
        for _ in range(9):
            angle, bend = float(rng.uniform(-1.3, 1.3)), float(rng.uniform(-2, 2))
            course = hilum_y + np.tan(np.float32(angle)) * across + bend * across**2
            thin = np.float32(0.011) * np.exp(-4 * np.clip(across, 0, 1))
            line = np.exp(-(((y - course) * np.cos(np.float32(angle)) / thin) ** 2))
            total += line * np.exp(-5 * np.clip(across, 0, 1)) * (across > 0)
    return _narrow(total)


def _opacity(spec: ChestSpec, x: Float32, y: Float32, lungs: Float32) -> Float32:
    found = np.zeros_like(x)
    if spec.opacity is None:
        return found
    rng = np.random.default_rng([spec.seed, 24])
    cloud = _cloud(rng, x.shape, cells=14)
    for blob in spec.opacity.blobs:
        edge = 1.15 - _ellipse(blob, x, y) + 0.8 * (cloud - 0.5)
        found = np.maximum(found, np.float32(blob.density) * _step(edge, 0.5))
    net = np.abs(_cloud(rng, x.shape, cells=60) - 0.5) * 2
    found += np.float32(spec.opacity.net) * (1 - net)
    return _narrow(found * lungs)


def _cloud(rng: np.random.Generator, shape: tuple[int, ...], *, cells: int) -> Float32:
    """Smooth noise from 0 to 1 with about ``cells`` lumps a side, bilinear between grid points."""
    grid = rng.random((cells + 2, cells + 2)).astype(np.float32)
    rows = np.linspace(0, cells, shape[0], dtype=np.float32)
    columns = np.linspace(0, cells, shape[1], dtype=np.float32)
    along = _between(grid, rows)
    return _narrow(_between(along.T, columns).T)


def _between(grid: Float32, places: Float32) -> Float32:
    low = places.astype(np.int64)
    share = places - low
    share = (share * share * (3 - 2 * share))[:, None]
    return _narrow(grid[low] * (1 - share) + grid[low + 1] * share)


def _blurred(density: Float32, radius: float) -> Float32:
    """Two box means of ``radius`` pixels, in both directions."""
    size = round(radius)
    for _ in range(2 if size else 0):
        for axis in (0, 1):
            density = _box_mean(density, size, axis)
    return density


def _box_mean(density: Float32, size: int, axis: int) -> Float32:
    padding = [(0, 0), (0, 0)]
    padding[axis] = (size, size)
    wide = np.pad(density, padding, mode="edge")
    count = density.shape[axis]
    parts = [np.take(wide, range(at, at + count), axis=axis) for at in range(2 * size + 1)]
    return _narrow(np.mean(parts, axis=0, dtype=np.float32))


def _framed(spec: ChestSpec, density: Float32) -> Float32:
    """Collimation to black at the sides, and the side mark."""
    rows, columns = density.shape
    edge = round(spec.collimation * columns)
    if edge:
        density[:, :edge] = 0
        density[:, columns - edge :] = 0
    if spec.letter:
        size = max(1, rows // 160)
        mark = np.kron(
            np.array([[int(dot) for dot in line] for line in _LETTER]), np.ones((size,) * 2)
        )
        top, left = round(0.3 * rows), edge + max(2, columns // 40)
        place = density[top : top + mark.shape[0], left : left + mark.shape[1]]
        place[mark > 0] = LETTER_DENSITY
    return density
