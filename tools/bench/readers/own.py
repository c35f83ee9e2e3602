"""How this device reads: headers, gate, pixels, and the steps of a package, one slice at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.headers import read_headers
from edge_runtime.pipeline.decode import read_pixels
from edge_runtime.pipeline.gate import check_series
from edge_runtime.pipeline.heap import keep_freed_images
from edge_runtime.pipeline.preprocess import prepare_image
from edge_runtime.pipeline.volume import File, Staging
from edge_runtime.pipeline.volume import read_volume as read_files
from engines.loading import load_package
from engines.package import GateRules, ModelPackage
from engines.preprocessing.running import assemble
from engines.shipped import shipped_packages
from tools.bench.readers.answers import Read
from tools.bench.readers.errors import SeriesRefusedError
from tools.bench.readers.names import HEAD_CT
from tools.bench.readers.volumes import Volume

VOLUME_GATE = GateRules(max_gantry_tilt_deg=1.0, max_spacing_deviation=0.05)


def read_volume(folder: Path, staging: Staging) -> Volume:
    """Every pixel in Hounsfield units, in memory that the next series is read to.

    Raises:
        SeriesRefusedError: there is no right volume.
    """
    volume = read_files(_open(folder, VOLUME_GATE), staging=staging)
    return Volume(values=volume.values, affine=volume.affine)


def read_tensor(folder: Path, package: ModelPackage) -> npt.NDArray[np.float32]:
    """The model's input.

    Raises:
        SeriesRefusedError: the model's gate refuses the series.
    """
    pictures = [
        prepare_image(read_pixels(path, header), header, package.preprocess)
        for path, header in _open(folder, package.gate)
    ]
    return assemble(pictures, package.preprocess, package.input.layout)


def _open(folder: Path, rules: GateRules) -> list[File]:
    paths = [folder / name for name in sorted(os.listdir(folder))]  # noqa: PTH208 - paths compare slowly
    files = [(path, read_headers(path)[0]) for path in paths]
    if not files:
        raise SeriesRefusedError("the folder holds no image")
    refusal = check_series([header for _, header in files], rules)
    if refusal is not None:
        raise SeriesRefusedError(f"{refusal.reason.value}: {refusal.measured}")
    return files


@contextlib.contextmanager
def volume_reader() -> Iterator[Read]:
    """As the worker's process is set up."""
    keep_freed_images()
    staging = Staging()
    yield lambda folder: read_volume(folder, staging)


@contextlib.contextmanager
def tensor_reader() -> Iterator[Read]:
    """The input of the head CT model."""
    keep_freed_images()
    package = load_package(shipped_packages()[HEAD_CT]).manifest
    yield lambda folder: read_tensor(folder, package)
