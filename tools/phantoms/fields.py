"""Random fields: the folds of a cortex and the grain of a reconstruction.

Both are made once for a study and read slice by slice, so that memory stays flat. Random fields
are drawn in the frequency domain, where a kernel's noise has its known shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.phantoms.frame import FloatArray
from tools.phantoms.spec import Kernel

FOLD_CELL_MM = (3.0, 2.5, 2.5)
"""Cell of the folds' field along z, y and x: a fold is some 10 mm wide."""
FOLD_SHAPE = (64, 88, 80)
FOLD_WAVELENGTH_MM = 17.0
GRAIN_CELL_MM = 3.5

KERNEL_CUTOFF_PER_MM = {Kernel.SOFT: 0.30, Kernel.STANDARD: 0.42, Kernel.BONE: 0.85}
NATIVE_NYQUIST_PER_MM = 0.5 / 0.45


@dataclass(frozen=True, slots=True)
class VolumeField:
    """A smooth random field, unit variance, periodic, on a grid of millimetre cells.

    ``values`` has the shape (z, y, x).
    """

    values: FloatArray
    cell_mm: tuple[float, float, float]

    def slice_at(self, z_mm: float, y_mm: FloatArray, x_mm: FloatArray) -> FloatArray:
        """The field at height ``z_mm``, at rows ``y_mm`` (R,) and columns ``x_mm`` (C,): (R, C)."""
        depth, height, width = self.values.shape
        position = z_mm / self.cell_mm[0]
        below = int(np.floor(position))
        fraction = np.float32(position - below)
        plane = self.values[below % depth] * (1 - fraction)
        plane = plane + self.values[(below + 1) % depth] * fraction
        rows = _interpolation_matrix(y_mm / self.cell_mm[1], height)
        columns = _interpolation_matrix(x_mm / self.cell_mm[2], width)
        result: FloatArray = rows @ plane @ columns.T
        return result


def _interpolation_matrix(positions: FloatArray, size: int) -> FloatArray:
    """Linear interpolation from a periodic axis of ``size`` samples: (len(positions), size)."""
    below = np.floor(positions).astype(np.int64)
    fraction = (positions - below).astype(np.float32)
    matrix = np.zeros((len(positions), size), np.float32)
    row = np.arange(len(positions))
    matrix[row, below % size] = 1 - fraction
    matrix[row, (below + 1) % size] += fraction
    return matrix


def fold_field(seed: int) -> VolumeField:
    """A band-passed field: its zero surfaces are the sulci of an invented cortex."""
    return VolumeField(_band_passed(seed, FOLD_SHAPE, FOLD_CELL_MM), FOLD_CELL_MM)


def grain_field(seed: int) -> VolumeField:
    """A low-passed field: the unevenness of tissue and the ragged edge of a clot."""
    shape = (48, 72, 64)
    cell = (GRAIN_CELL_MM,) * 3
    frequency = _radial_frequency(shape, cell)
    return VolumeField(_shaped(seed, shape, np.exp(-((frequency / 0.06) ** 2))), cell)


def _band_passed(
    seed: int, shape: tuple[int, int, int], cell_mm: tuple[float, float, float]
) -> FloatArray:
    frequency = _radial_frequency(shape, cell_mm) * FOLD_WAVELENGTH_MM
    return _shaped(seed, shape, np.exp(-(((frequency - 1.0) / 0.35) ** 2)))


def _radial_frequency(
    shape: tuple[int, int, int], cell_mm: tuple[float, float, float]
) -> FloatArray:
    axes = [np.fft.fftfreq(n, c) for n, c in zip(shape[:2], cell_mm[:2], strict=True)]
    last = np.fft.rfftfreq(shape[2], cell_mm[2])
    squares = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + last[None, None, :] ** 2
    frequency: FloatArray = np.sqrt(squares).astype(np.float32)
    return frequency


def _shaped(seed: int, shape: tuple[int, int, int], response: FloatArray) -> FloatArray:
    white = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    field: FloatArray = np.fft.irfftn(np.fft.rfftn(white) * response, s=shape, axes=(0, 1, 2))
    scaled: FloatArray = (field / field.std()).astype(np.float32)
    return scaled


@dataclass(frozen=True, slots=True)
class NoiseTile:
    """Reconstruction noise of one study: a tile larger than a slice, cut anew for each slice."""

    values: FloatArray

    def cut(self, rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
        """Noise of one slice, (rows, columns): two cuts of the tile in random places, mixed."""
        first = self._window(rng, rows, columns)
        second = self._window(rng, rows, columns)[::-1, :: int(rng.choice((-1, 1)))]
        angle = float(rng.uniform(0, 2 * np.pi))
        mixed: FloatArray = first * np.float32(np.cos(angle)) + second * np.float32(np.sin(angle))
        return mixed

    def _window(self, rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
        height, width = self.values.shape
        row = int(rng.integers(height - rows + 1))
        column = int(rng.integers(width - columns + 1))
        return self.values[row : row + rows, column : column + columns]


def noise_tile(
    seed: int, *, kernel: Kernel, noise_hu: float, pixel_mm: float, largest_side: int
) -> NoiseTile:
    """Noise with the kernel's power spectrum: a ramp times a roll-off (filtered back-projection).

    ``noise_hu`` is the standard deviation in a native 0.45 mm pixel; coarser pixels see only the
    part of the spectrum below their own Nyquist frequency, as a scanner's would.
    """
    side = max(largest_side * 5 // 4, 96)
    cutoff = KERNEL_CUTOFF_PER_MM[kernel]
    rows = np.fft.fftfreq(side, pixel_mm).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(side, pixel_mm).astype(np.float32)[None, :]
    density = _noise_power(np.sqrt(rows**2 + columns**2), cutoff)
    radial = np.linspace(0, NATIVE_NYQUIST_PER_MM, 400)
    step = float(radial[1])
    total = float(np.sum(_noise_power(radial, cutoff) * 2 * np.pi * radial) * step)
    # White noise of unit variance has the flat spectral density pixel_mm^2.
    gain = noise_hu * np.sqrt(density / total) / pixel_mm
    white = np.random.default_rng(seed).standard_normal((side, side), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * gain, s=(side, side), axes=(0, 1))
    return NoiseTile(field.astype(np.float32))


def _noise_power(frequency: NDArray[np.floating], cutoff: float) -> NDArray[np.floating]:
    power: NDArray[np.floating] = (frequency + 0.03) * np.exp(-((frequency / cutoff) ** 2))
    return power
