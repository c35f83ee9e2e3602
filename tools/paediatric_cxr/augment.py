"""Variations of training pictures: what differs between rooms and children, not between diagnoses.

Proportions vary widely, because the data set's pictures were squeezed to squares and their former
proportions differ between its classes; patches are blotted out, because letters, tubes and collars
at the border differ between them too.
"""

from __future__ import annotations

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]  # extra 'train', absent elsewhere
from numpy.typing import NDArray

TURN_DEG = 8.0
STRETCH = 0.18
"""Of width against height, as a fraction either way."""
ZOOM = 0.12
SHIFT = 0.08
"""As a fraction of the side."""
GAMMA = 0.35
"""Of the exponent's logarithm."""
BLUR_SHARE = 0.4
NOISE = 0.04
BLOT_SHARE = 0.5
BLOT = (0.12, 0.35)
"""Smallest and largest side, as a fraction of the picture's."""


def vary(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Each picture varied in its own way.

    Args:
        pictures: (N, rows, columns), 0 to 1.
        rng: decides everything.
    """
    varied = _moved(pictures[:, None], rng)
    soft = torch.nn.functional.avg_pool2d(varied, 3, 1, 1)
    share = torch.from_numpy(
        _column(np.asarray(rng.uniform(0, 1, len(varied)) * _some(rng, len(varied)), np.float64))
    )
    varied = varied * (1 - share) + soft * share
    exponent = torch.from_numpy(_column(np.exp(rng.uniform(-GAMMA, GAMMA, len(varied)))))
    varied = varied.clamp(0, 1) ** exponent
    noise = rng.normal(0, 1, tuple(varied.shape)).astype(np.float32)
    varied = varied + torch.from_numpy(noise * _column(rng.uniform(0, NOISE, len(varied))))
    return _blotted(varied[:, 0].clamp(0, 1), rng)


def _column(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32).reshape(-1, 1, 1, 1)


def _some(rng: np.random.Generator, count: int) -> NDArray[np.bool_]:
    return np.asarray(rng.random(count) < BLUR_SHARE)


def _moved(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirrored, turned, stretched, zoomed and shifted; beyond the border it goes on as there."""
    count = len(pictures)
    turn = np.deg2rad(rng.uniform(-TURN_DEG, TURN_DEG, count))
    zoom = np.exp(rng.uniform(-ZOOM, ZOOM, count))
    stretch = np.exp(rng.uniform(-STRETCH, STRETCH, count) / 2)
    mirror = rng.choice((-1.0, 1.0), count)
    shift = rng.uniform(-2 * SHIFT, 2 * SHIFT, (2, count))
    wide, high = zoom * stretch * mirror, zoom / stretch
    matrix = np.stack(
        [
            np.stack([wide * np.cos(turn), -wide * np.sin(turn), shift[0]], axis=1),
            np.stack([high * np.sin(turn), high * np.cos(turn), shift[1]], axis=1),
        ],
        axis=1,
    ).astype(np.float32)
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(matrix), list(pictures.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(
        pictures, grid, padding_mode="border", align_corners=False
    )


def _blotted(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Some pictures with a grey rectangle."""
    rows, columns = pictures.shape[1:]
    for picture in pictures:
        if rng.random() >= BLOT_SHARE:
            continue
        high, wide = (int(v * rows) for v in rng.uniform(*BLOT, 2))
        top, left = int(rng.integers(rows - high)), int(rng.integers(columns - wide))
        picture[top : top + high, left : left + wide] = float(rng.random())
    return pictures
