"""From stored pixels to the answer: the kernel's output is the engine's input, on the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.contract import Backend, Precision
from engines.device.driver import find_driver
from engines.errors import EngineError
from engines.kernel.opening import answers_of, open_runner
from engines.loading import LoadedPackage
from engines.preprocessing.values import StoredImage
from engines.runner import HostRunner
from engines.tensorrt.engine import TensorRtEngine
from tools.gpu_check.kernel_step import drawn_for
from tools.gpu_check.rows import RowFile, Verdict, number
from tools.gpu_check.subjects import Subject, opened, packages

MOST_DEVIATION = 5e-3
"""Of an output: what 2e-4 of the input may do to it."""

_SLICES = 96
"""Slabs of 5 mm of them fit one batch."""
_ROUNDS = 5


def check(rows: RowFile, folder: Path) -> None:
    """Compare each package's answer with that to NumPy's input.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    find_driver()
    for package in packages():
        images = drawn_for(package, slices=_SLICES)[0].images
        for backend in (Backend.TENSORRT, Backend.TENSORRT_RTX):
            subject = Subject(package=package, backend=backend, precision=Precision.FP32)
            with opened(rows, subject, folder) as engine:
                if not isinstance(engine, TensorRtEngine):
                    continue
                try:
                    check_engine(rows, subject.name, package, engine, images)
                except EngineError as error:
                    rows.add(subject.name, type(error).__name__, str(error), verdict=Verdict.FAILED)


def check_engine(
    rows: RowFile,
    name: str,
    package: LoadedPackage,
    engine: TensorRtEngine,
    images: Sequence[StoredImage],
) -> None:
    """Run the engine on what the kernel made on its device, and on what NumPy made.

    Raises:
        EngineError: The engine or the device failed.
    """
    manifest = package.manifest
    by_numpy = answers_of(HostRunner(manifest, engine), manifest, images)
    taken = []
    with open_runner(manifest, engine, Precision.FP32) as opened:
        if opened.obstacle:
            rows.not_here(name, f"the processor prepares: {opened.obstacle}")
            return
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            found = answers_of(opened.runner, manifest, images)
            taken.append(time.perf_counter() - started)
    for output, array in by_numpy.items():
        off = float(np.abs(found[output] - array).max())
        holds = off <= MOST_DEVIATION
        rows.check(name, f"answers as to NumPy's input, {output!r}", holds, f"{off:.2g}")
    milliseconds = number(1000 * statistics.median(taken))
    rows.add(name, f"{len(images)} stored images to the answer", f"{milliseconds} ms", is_key=True)
