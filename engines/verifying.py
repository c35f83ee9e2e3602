"""All there is to check of a package: once, before it is shipped or installed.

Takes the ``onnx`` library and an engine. At each start a worker repeats what may have changed
since: ``load_package`` (files, papers) and ``check_parity`` (tensors, golden outputs).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.backends import open_engine
from engines.calibration import suspected_elements
from engines.contract import Backend, EngineOptions
from engines.errors import GoldenFileError
from engines.golden import load_golden
from engines.loading import LoadedPackage, load_package
from engines.onnx_checks import check_model
from engines.parity import ParityReport, check_parity


def verify_package(folder: Path, backend: Backend, options: EngineOptions) -> ParityReport:
    """Checks everything about a package before it may be installed.

    Returns:
        How closely ``backend`` reproduces the golden outputs.

    Raises:
        PackageError: The package is bad.
        EngineError: The back end is not installed, or does not reproduce the golden outputs.
    """
    package = load_package(folder)
    check_model(package)
    _check_golden_decides(package)
    with open_engine(backend, package.model, options) as engine:
        return check_parity(engine, package)


def _check_golden_decides(package: LoadedPackage) -> None:
    """No flips at the operating point proves nothing unless there is something to flip."""
    output = package.manifest.output
    logits = load_golden(package).outputs[output.tensor.name]
    suspected = suspected_elements(logits, output)
    if np.all(suspected) or not np.any(suspected):
        raise GoldenFileError(
            "golden/outputs.npz lies all on one side of the operating point; "
            "add golden inputs of the other kind"
        )
