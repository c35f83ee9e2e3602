"""The same work done by others: SimpleITK and scipy, as references for the preprocessing steps.

Arrays are as ours, (slices,) rows, columns; SimpleITK counts its axes the other way round.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage  # type: ignore[import-untyped]  # comes without types
from pydantic import TypeAdapter

from engines.preprocessing.values import Float32, Float64, Picture
from engines.steps import PreprocessStep

with warnings.catch_warnings():
    # SWIG's own types have no __module__, which Python 3.12 complains of.
    warnings.simplefilter("ignore", DeprecationWarning)
    import SimpleITK

# Most of it has no types.
sitk: Any = SimpleITK
INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}
_STEPS: TypeAdapter[tuple[PreprocessStep, ...]] = TypeAdapter(tuple[PreprocessStep, ...])


def steps_of(*tables: dict[str, Any]) -> tuple[PreprocessStep, ...]:
    """Steps as ``package.toml`` has them."""
    return _STEPS.validate_python(tables)


def picture(values: npt.ArrayLike, **fields: Any) -> Picture:
    """A picture of these values, of which the extremes are its own unless given."""
    array = np.asarray(values, dtype=np.float32)
    known = {"extremes": (float(array.min()), float(array.max())), **fields}
    return Picture(values=array, **known)


def centred_image(
    values: npt.NDArray[Any], spacing: Sequence[float], direction: Float64 | None = None
) -> Any:
    """With the origin of space in the middle; ``direction`` has a column for each of ITK's axes."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float64))
    _place(image, spacing, direction)
    return image


def _place(image: Any, spacing: Sequence[float], direction: Float64 | None) -> None:
    turned = np.eye(image.GetDimension()) if direction is None else direction
    image.SetSpacing([float(mm) for mm in spacing[::-1]])
    image.SetDirection(turned.ravel().tolist())
    corner = -(np.array(image.GetSize()) - 1) / 2 * np.array(image.GetSpacing())
    image.SetOrigin((turned @ corner).tolist())


def on_grid(
    image: Any,
    shape: Sequence[int],
    spacing: Sequence[float],
    method: str,
    fill: float | None = None,
) -> Float64:
    """SimpleITK's resampling onto a grid of the same middle and direction; no fill: the edge."""
    grid = sitk.Image([int(size) for size in shape[::-1]], sitk.sitkFloat64)
    _place(grid, spacing, np.array(image.GetDirection()).reshape(image.GetDimension(), -1))
    resampled = sitk.Resample(
        image,
        grid,
        sitk.Transform(),
        INTERPOLATORS[method],
        0.0 if fill is None else fill,
        sitk.sitkFloat64,
        fill is None,
    )
    return np.asarray(sitk.GetArrayFromImage(resampled), dtype=np.float64)


def zoomed(values: Float32, shape: Sequence[int], method: str) -> Float64:
    """Scipy's zoom to a shape, pixels being areas and not points."""
    zoom = [new / old for new, old in zip(shape, values.shape, strict=True)]
    order = {"nearest": 0, "linear": 1}[method]
    stretched: Float64 = scipy.ndimage.zoom(
        values.astype(np.float64), zoom, order=order, mode="nearest", grid_mode=True
    )
    assert stretched.shape == tuple(shape)
    return stretched


def area_means(
    values: npt.NDArray[Any], axis: int, spacing: float, cells: int, cell: float
) -> Float64:
    """Means over cells about the middle: differences of the antiderivative; beyond it lies 0."""
    along = np.moveaxis(np.asarray(values, dtype=np.float64), axis, -1)
    pixels = along.shape[-1]
    edges = (np.arange(pixels + 1) - pixels / 2) * spacing
    integral = np.concatenate(
        [np.zeros((*along.shape[:-1], 1)), np.cumsum(along, axis=-1) * spacing], axis=-1
    )
    wanted = (np.arange(cells + 1) - cells / 2) * cell
    at_edges = np.apply_along_axis(lambda line: np.interp(wanted, edges, line), -1, integral)
    return np.moveaxis(np.diff(at_edges, axis=-1) / cell, -1, axis)
