"""All there is to check of a package without a study: once, before it is shipped or installed.

Takes the ``onnx`` library and an engine. At each start a worker repeats what may have changed
since: ``load_package`` (files, papers) and ``check_parity`` (tensors, golden outputs).
``edge_runtime.pipeline.verification`` adds the golden studies and what people ask besides.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.backends import open_engine
from engines.calibration import suspected_items
from engines.contract import Backend, EngineOptions
from engines.errors import EngineOutputError, GoldenFileError
from engines.golden import load_golden
from engines.loading import LoadedPackage, load_package
from engines.onnx_checks import check_model
from engines.parity import ParityReport, check_parity


def verify_package(folder: Path, backend: Backend, options: EngineOptions) -> ParityReport:
    """Checks everything about a package but its golden studies.

    Returns:
        How closely ``backend`` reproduces the golden outputs.

    Raises:
        PackageError: The package is bad.
        EngineError: The back end is not installed, or does not reproduce the golden outputs.
    """
    package = load_package(folder)
    check_model(package)
    check_golden_decides(package)
    with open_engine(backend, package.model, options) as engine:
        return check_parity(engine, package)


def check_golden_decides(package: LoadedPackage) -> None:
    """Checks that golden outputs lie on both sides of each operating point.

    No flips there proves nothing unless there is something to flip.

    Raises:
        GoldenFileError: They do not, or cannot be read as the findings' numbers.
    """
    golden = load_golden(package)
    name = package.golden_outputs.path.name
    items = {len(array) for array in (*golden.inputs.values(), *golden.outputs.values())}
    if len(items) > 1:
        raise GoldenFileError(f"golden/{name} is not of as many items as the inputs")
    for rule in package.manifest.findings:
        try:
            suspected = suspected_items(golden.outputs, rule)
        except EngineOutputError as error:
            raise GoldenFileError(f"golden/{name}: {error}") from error
        if np.all(suspected) or not np.any(suspected):
            raise GoldenFileError(
                f"golden/{name} lies all on one side of the operating point of {rule.key!r}; "
                "add golden inputs of the other kind"
            )
