"""How this device reads: headers, gate, pixels, and the steps of a package, one slice at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dicom_node.headers import read_headers
from dicom_node.instance import InstanceHeader
from edge_runtime.pipeline.decode import read_pixels
from edge_runtime.pipeline.gate import check_series
from edge_runtime.pipeline.geometry import Plane, StackGeometry, measure_stack
from edge_runtime.pipeline.heap import keep_freed_images
from edge_runtime.pipeline.preprocess import prepare_image
from engines.loading import load_package
from engines.package import GateRules, ModelPackage
from engines.preprocessing.running import assemble
from engines.shipped import shipped_packages
from engines.steps import CanonicalOrientation, Rescale, StackSlices
from tools.bench.readers.answers import Read
from tools.bench.readers.errors import SeriesRefusedError
from tools.bench.readers.names import HEAD_CT
from tools.bench.readers.volumes import Volume

Scalar = TypeVar("Scalar", bound=np.generic)
Float64 = npt.NDArray[np.float64]

VOLUME_STEPS = (
    Rescale(step="rescale", padding=-1024.0),
    CanonicalOrientation(step="canonical_orientation"),
    StackSlices(step="stack_slices"),
)
VOLUME_GATE = GateRules(max_gantry_tilt_deg=1.0, max_spacing_deviation=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """Files in the order along the normal."""

    paths: tuple[Path, ...]
    headers: tuple[InstanceHeader, ...]
    stack: StackGeometry

    def files(self) -> Iterator[tuple[Path, InstanceHeader]]:
        """Each with its header."""
        return zip(self.paths, self.headers, strict=True)


def read_volume(folder: Path) -> Volume:
    """Every pixel in Hounsfield units, as float32, by the steps of a package.

    Raises:
        SeriesRefusedError: there is no right volume.
    """
    series = _open(folder, VOLUME_GATE)
    pictures = (
        prepare_image(read_pixels(path, header), header, VOLUME_STEPS).values
        for path, header in series.files()
    )
    values = _stacked(pictures, len(series.paths))
    return Volume(values=values, affine=_turned(series.stack))


def read_stored(folder: Path) -> Volume:
    """Every pixel as stored, with each slice's slope and intercept.

    Raises:
        SeriesRefusedError: there is no right volume.
    """
    series = _open(folder, VOLUME_GATE)
    pixels = (read_pixels(path, header) for path, header in series.files())
    values = _stacked(pixels, len(series.paths))
    return Volume(
        values=values,
        affine=series.stack.affine,
        slope=_of_slices([header.rescale_slope for header in series.headers], 1.0),
        intercept=_of_slices([header.rescale_intercept for header in series.headers], 0.0),
    )


def read_tensor(folder: Path, package: ModelPackage) -> npt.NDArray[np.float32]:
    """The model's input.

    Raises:
        SeriesRefusedError: the model's gate refuses the series.
    """
    series = _open(folder, package.gate)
    pictures = [
        prepare_image(read_pixels(path, header), header, package.preprocess)
        for path, header in series.files()
    ]
    return assemble(pictures, package.preprocess, package.input.layout)


def _open(folder: Path, rules: GateRules) -> _Series:
    paths = sorted(folder.iterdir())
    headers = [read_headers(path)[0] for path in paths]
    if not headers:
        raise SeriesRefusedError("the folder holds no image")
    refusal = check_series(headers, rules)
    if refusal is not None:
        raise SeriesRefusedError(f"{refusal.reason.value}: {refusal.measured}")
    stack = measure_stack(headers)
    if stack is None:
        raise SeriesRefusedError("geometry is missing")
    return _Series(
        paths=tuple(paths[index] for index in stack.order),
        headers=tuple(headers[index] for index in stack.order),
        stack=stack,
    )


def _stacked(slices: Iterator[npt.NDArray[Scalar]], count: int) -> npt.NDArray[Scalar]:
    """One array of at least one; each slice's own memory is free for the next one."""
    first = next(slices)
    values = np.empty((count, *first.shape), dtype=first.dtype)
    values[0] = first
    for number, each in enumerate(slices, start=1):
        values[number] = each
    return values


def _of_slices(numbers: Sequence[float | None], absent: float) -> Float64:
    known = [absent if number is None else number for number in numbers]
    return np.array(known, dtype=np.float64)[:, np.newaxis, np.newaxis]


def _turned(stack: StackGeometry) -> Float64:
    """The affine of images that were brought into canonical orientation."""
    affine, plane = stack.affine, stack.plane
    rows, columns = stack.rows, stack.columns
    if plane.transpose:
        affine[:, [0, 1]] = affine[:, [1, 0]]
        rows, columns = columns, rows
    for number, size, is_flipped in _flips(plane, rows, columns):
        if is_flipped:
            affine[:, 3] += affine[:, number] * (size - 1)
            affine[:, number] *= -1
    return affine


def _flips(plane: Plane, rows: int, columns: int) -> tuple[tuple[int, int, bool], ...]:
    return ((0, columns, plane.flip_columns), (1, rows, plane.flip_rows))


@contextlib.contextmanager
def volume_reader() -> Iterator[Read]:
    """As the worker's process is set up."""
    keep_freed_images()
    yield read_volume


@contextlib.contextmanager
def stored_reader() -> Iterator[Read]:
    """As the worker's process is set up."""
    keep_freed_images()
    yield read_stored


@contextlib.contextmanager
def tensor_reader() -> Iterator[Read]:
    """The input of the head CT model."""
    keep_freed_images()
    package = load_package(shipped_packages()[HEAD_CT]).manifest
    yield lambda folder: read_tensor(folder, package)
