"""Drawn images on which the kernel is compared: the traits that it must read right."""

from __future__ import annotations

import numpy as np

from engines.preprocessing.values import StoredImage, Turn

SEED = 11
_TURNS = (
    Turn(),
    Turn(flip_rows=True),
    Turn(transpose=True),
    Turn(transpose=True, flip_rows=True, flip_columns=True),
)


def draw_ct(
    slices: int, *, rows: int = 512, columns: int = 512, turn: int = 0
) -> list[StoredImage]:
    """A head CT in HU + 1024, each slice with its own slope, as PET and some CT have it."""
    random = np.random.default_rng([SEED, turn])
    return [
        StoredImage(
            pixels=_smooth(random, rows, columns, 0, 4095).astype(
                np.int16 if turn % 2 else np.uint16
            ),
            slope=1.0 + 0.001 * (number % 3),
            intercept=-1024.0,
            padding=-2000 if turn % 2 else None,
            bits_stored=12,
            is_signed=bool(turn % 2),
            spacing_mm=(0.45, 0.45),
            turn=_TURNS[turn % len(_TURNS)],
            position_mm=1.25 * number,
            thickness_mm=1.25,
        )
        for number in range(slices)
    ]


def draw_radiographs(count: int, *, rows: int = 2048, columns: int = 2500) -> list[StoredImage]:
    """Chest radiographs of 12 bits, every second one in MONOCHROME1."""
    random = np.random.default_rng([SEED, 99])
    return [
        StoredImage(
            pixels=_smooth(random, rows, columns, 0, 4095).astype(np.uint16),
            bits_stored=12,
            is_monochrome1=bool(number % 2),
            spacing_mm=(0.15, 0.15),
            turn=Turn(),
        )
        for number in range(count)
    ]


def _smooth(
    random: np.random.Generator, rows: int, columns: int, low: int, high: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Coarse blocks with noise: neither a constant nor white."""
    cell = 32
    coarse = random.integers(low, high, (-(-rows // cell), -(-columns // cell)))
    fine = np.kron(coarse, np.ones((cell, cell), np.int64))[:rows, :columns]
    noise = random.integers(-200, 200, fine.shape)
    return np.clip(fine + noise, low, high)
