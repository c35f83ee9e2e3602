"""Disturbances of a radiograph by increasing strength, for the robustness curves.

They act on the 8-bit picture before preprocessing, as trouble on the way would: strength 0 changes
nothing. Pure, and the noise is decided by a seed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]


class Disturbance(str, Enum):
    """What happens to the picture."""

    NOISE = "noise"
    BLUR = "blur"
    CONTRAST = "contrast"
    BRIGHTNESS = "brightness"
    ROTATION = "rotation"
    CROP = "crop"
    STRETCH = "stretch"
    JPEG = "jpeg"
    INVERSION = "inversion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a disturbance is stepped through."""

    label: str
    unit: str
    strengths: tuple[float, ...]
    """Ascending; 0 (or, for JPEG, what leaves the picture as it is) among them."""
    apply: Callable[[Picture, float, int], Picture]
    """Picture, strength, seed."""


def disturb(pixels: Picture, kind: Disturbance, strength: float, *, seed: int = 0) -> Picture:
    """The picture (rows, columns) under a disturbance, in the same size."""
    changed: Picture = COURSES[kind].apply(pixels, strength, seed)
    return changed


def _bytes(values: NDArray[np.floating[Any]]) -> Picture:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _noise(pixels: Picture, strength: float, seed: int) -> Picture:
    rng = np.random.default_rng([seed, 31])
    return _bytes(pixels + rng.normal(0, 1, pixels.shape) * (strength * 2.55))


def _blur(pixels: Picture, strength: float, _: int) -> Picture:
    radius = strength / 100 * pixels.shape[0]
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _contrast(pixels: Picture, strength: float, _: int) -> Picture:
    """The film's curve steeper or flatter: percentile normalisation undoes a linear change."""
    return _bytes(255 * (pixels / 255.0) ** float(2.0**strength))


def _brightness(pixels: Picture, strength: float, _: int) -> Picture:
    """Shifted until it clips, which loses what was there."""
    return _bytes(pixels + strength * 2.55)


def _rotation(pixels: Picture, strength: float, _: int) -> Picture:
    turned = Image.fromarray(pixels).rotate(strength, Image.Resampling.BILINEAR)
    return np.asarray(turned)


def _crop(pixels: Picture, strength: float, _: int) -> Picture:
    """A share of each side cut off, the rest enlarged."""
    rows, columns = pixels.shape
    share = strength / 100
    box = (columns * share, rows * share, columns * (1 - share), rows * (1 - share))
    return _resized(pixels, box)


def _stretch(pixels: Picture, strength: float, _: int) -> Picture:
    """Wider (above 0) or narrower: a share of the height (or width) cut off, the rest stretched."""
    rows, columns = pixels.shape
    share = abs(strength) / 100
    across, along = (0.0, share) if strength > 0 else (share, 0.0)
    box = (
        columns * across / 2,
        rows * along / 2,
        columns * (1 - across / 2),
        rows * (1 - along / 2),
    )
    return _resized(pixels, box)


def _resized(pixels: Picture, box: tuple[float, float, float, float]) -> Picture:
    size = (pixels.shape[1], pixels.shape[0])
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, box=box))


def _jpeg(pixels: Picture, strength: float, _: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=round(strength))
    with Image.open(buffer) as stored:
        return np.asarray(stored)


def _inversion(pixels: Picture, strength: float, _: int) -> Picture:
    """Mixed with its negative; at 1 it is MONOCHROME1 that is told as MONOCHROME2."""
    return _bytes(pixels * (1 - strength) + (255.0 - pixels) * strength)


COURSES: Mapping[Disturbance, Course] = MappingProxyType(
    {
        Disturbance.NOISE: Course(
            label="Noise", unit="standard deviation, % of the range",
            strengths=(0, 2, 5, 10, 15, 20, 30), apply=_noise,
        ),
        Disturbance.BLUR: Course(
            label="Blur", unit="Gaussian sigma, % of the height",
            strengths=(0, 0.25, 0.5, 1, 1.5, 2, 3), apply=_blur,
        ),
        Disturbance.CONTRAST: Course(
            label="Contrast curve", unit="log2 of the exponent",
            strengths=(-1.5, -1, -0.5, 0, 0.5, 1, 1.5), apply=_contrast,
        ),
        Disturbance.BRIGHTNESS: Course(
            label="Brightness with clipping", unit="% of the range",
            strengths=(-40, -25, -10, 0, 10, 25, 40), apply=_brightness,
        ),
        Disturbance.ROTATION: Course(
            label="Rotation", unit="degrees",
            strengths=(-30, -20, -10, -5, 0, 5, 10, 20, 30), apply=_rotation,
        ),
        Disturbance.CROP: Course(
            label="Crop", unit="% cut off each side",
            strengths=(0, 5, 10, 15, 20, 25), apply=_crop,
        ),
        Disturbance.STRETCH: Course(
            label="Proportions", unit="% wider (below 0: narrower)",
            strengths=(-30, -20, -10, 0, 10, 20, 30), apply=_stretch,
        ),
        Disturbance.JPEG: Course(
            label="JPEG compression", unit="quality",
            strengths=(5, 10, 20, 30, 50, 75, 95), apply=_jpeg,
        ),
        Disturbance.INVERSION: Course(
            label="Inverted photometric", unit="share of the negative",
            strengths=(0, 0.25, 0.4, 0.6, 0.75, 1), apply=_inversion,
        ),
    }
)  # fmt: skip
