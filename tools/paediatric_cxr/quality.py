"""How sharp, contrasty and bright a radiograph is: measures by which the test set is divided.

They are taken of the 8-bit picture as the data set has it, before any normalisation. They say how
the picture was made and stored, and nothing about the child.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BORDER = 0.1
"""Of each side: letters, collimation and air there are not part of the measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Measures of one picture, in grey levels of 0 to 255."""

    sharpness: float
    """Mean step between neighbours, relative to the contrast; no unit."""
    contrast: float
    """From the 5th to the 95th percentile."""
    exposure: float
    """Median: high is a bright picture, of little exposure."""


def measure_quality(pixels: NDArray[np.uint8]) -> Quality:
    """Measure a picture (rows, columns)."""
    rows, columns = (round(side * BORDER) for side in pixels.shape)
    inner = pixels[rows : pixels.shape[0] - rows, columns : pixels.shape[1] - columns]
    grey = inner.astype(np.float64)
    low, middle, high = (float(v) for v in np.percentile(grey, (5, 50, 95)))
    steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return Quality(
        sharpness=float(steps / 2) / max(high - low, 1.0), contrast=high - low, exposure=middle
    )
