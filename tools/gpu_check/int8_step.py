"""A model with Q/DQ nodes, made here as ``edge-triage models quantise`` makes it, on the GPU.

The reference runs the same Q/DQ model on the processor. Both round to 255 steps, and where they
round differently a step is gained or lost: outputs are near, not equal. What INT8 does to a
package's decisions is not asked here: its maker measures that, when the package is made.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from engines.backends import open_engine
from engines.batching import run_batches
from engines.checksums import MAX_FILE_BYTES, VerifiedFile
from engines.contract import Backend, Engine, Precision
from engines.device.driver import find_driver
from engines.drawn_inputs import draw_inputs
from engines.errors import EngineError
from engines.golden import load_golden
from engines.loading import LoadedPackage
from engines.parity import cosine_of
from tools.gpu_check.rows import RowFile, Verdict, number
from tools.gpu_check.subjects import Subject, opened, packages
from tools.quantise.methods import Method
from tools.quantise.network import quantise_model

LEAST_COSINE = 0.99
"""A wrong scale or a lost layer is far below."""

_ITEMS = 64
_SEED = 17
_BACKENDS = (Backend.TENSORRT, Backend.TENSORRT_RTX)


def check(rows: RowFile, folder: Path) -> None:
    """Quantise each package's model, and compare.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    find_driver()
    for package in packages():
        quantised = quantised_package(package, folder)
        for backend in _BACKENDS:
            subject = Subject(package=quantised, backend=backend, precision=Precision.FP32)
            with opened(rows, subject, folder) as engine:
                if engine is not None:
                    check_engine(rows, f"{subject.name} with Q/DQ", subject, engine, folder)


def quantised_package(package: LoadedPackage, folder: Path) -> LoadedPackage:
    """The package with a quantised model in place of its own; its papers are not renewed."""
    rule = package.manifest.input
    items = _drawn(package)
    content = quantise_model(package.model.read(MAX_FILE_BYTES), rule, items, Method.MINMAX).model
    path = folder / f"{package.folder.name}-int8.onnx"
    path.write_bytes(content)
    model = VerifiedFile(path=path, sha256=hashlib.sha256(content).hexdigest())
    return dataclasses.replace(package, model=model)


def check_engine(rows: RowFile, name: str, subject: Subject, engine: Engine, folder: Path) -> None:
    """Compare with the processor's engine on the same model."""
    package = subject.package
    given = _drawn(package)
    try:
        with open_engine(Backend.ONNXRUNTIME, package.model, subject.options(folder)) as reference:
            wanted = run_batches(reference, package.manifest.input, given)
        found = run_batches(engine, package.manifest.input, given)
    except EngineError as error:
        rows.add(name, type(error).__name__, str(error), verdict=Verdict.FAILED)
        return
    for output, array in wanted.items():
        off = float(np.abs(found[output] - array).max())
        cosine = cosine_of(array, found[output])
        rows.add(name, f"largest deviation of {output!r}", number(off), is_key=True)
        rows.check(name, f"cosine at least {LEAST_COSINE}", cosine >= LEAST_COSINE, f"{cosine:.6f}")


def _drawn(package: LoadedPackage) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rule = package.manifest.input
    return draw_inputs(load_golden(package).inputs[rule.name], rule, count=_ITEMS, seed=_SEED)
