"""What a series really holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a series holds; slices from inferior to superior, tilted ones along the table."""

    stored: npt.NDArray[np.uint16]
    """(slices, rows, columns)"""
    slopes: npt.NDArray[np.float64]
    intercept: float
    corners_mm: npt.NDArray[np.float64]
    """(slices, 3): LPS of the first pixel's centre."""
    axes_mm: npt.NDArray[np.float64]
    """(2, 3): LPS steps to the next column and to the next row."""

    def hounsfield(self, index: int) -> npt.NDArray[np.float64]:
        """Values of one slice."""
        values: npt.NDArray[np.float64] = self.stored[index] * self.slopes[index] + self.intercept
        return values

    def save(self, path: Path) -> None:
        """Write it for the processes that read."""
        np.savez(
            path,
            stored=self.stored,
            slopes=self.slopes,
            intercept=self.intercept,
            corners_mm=self.corners_mm,
            axes_mm=self.axes_mm,
        )

    @staticmethod
    def load(path: Path) -> Truth:
        """Read what ``save`` wrote."""
        with np.load(path) as found:
            return Truth(
                stored=found["stored"],
                slopes=found["slopes"],
                intercept=float(found["intercept"]),
                corners_mm=found["corners_mm"],
                axes_mm=found["axes_mm"],
            )
