"""Does this engine, on this device, give the numbers that the package's maker saw?

Two conditions, both needed: every output lies within the package's tolerance of the golden one,
and no decision at the operating point differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.calibration import suspected_elements
from engines.contract import Engine, TensorSpec
from engines.errors import EngineOutputError, ModelFileError, ParityError
from engines.golden import load_golden, spec_of
from engines.loading import LoadedPackage
from engines.package import FindingOutput, Parity


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How far a candidate's outputs are from the reference's."""

    elements: int
    max_absolute: float
    """Largest |candidate - reference|."""
    outside_tolerance: int
    """Elements with |candidate - reference| > absolute + relative * |reference|."""
    flips: int
    """Elements whose decision at the operating point differs."""

    @property
    def holds(self) -> bool:
        """True when nothing is out of tolerance and no decision differs."""
        return self.outside_tolerance == 0 and self.flips == 0


def compare(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    *,
    output: FindingOutput,
    tolerance: Parity,
) -> ParityReport:
    """Compares two engines' logits for the same inputs.

    Raises:
        EngineOutputError: The shapes differ, or a value is NaN or infinite.
    """
    if reference.shape != candidate.shape:
        raise EngineOutputError(
            f"outputs have shape {candidate.shape}, the reference has {reference.shape}"
        )
    # First: it refuses NaN and infinity, which no tolerance below would find.
    flipped = suspected_elements(reference, output) != suspected_elements(candidate, output)
    wanted, got = reference.astype(np.float64), candidate.astype(np.float64)
    deviation = np.abs(got - wanted)
    allowed = tolerance.absolute + tolerance.relative * np.abs(wanted)
    return ParityReport(
        elements=reference.size,
        max_absolute=float(deviation.max(initial=0.0)),
        outside_tolerance=int(np.count_nonzero(deviation > allowed)),
        flips=int(np.count_nonzero(flipped)),
    )


def check_parity(engine: Engine, package: LoadedPackage) -> ParityReport:
    """Runs the golden inputs through a loaded engine.

    Returns:
        The report, which holds.

    Raises:
        GoldenFileError: The golden files are bad.
        ModelFileError: The model's tensors are not those of ``package.toml``.
        ParityError: The engine does not reproduce the golden outputs.
        EngineError: The engine failed.
    """
    manifest = package.manifest
    _check_tensors("input", engine.inputs, spec_of(manifest.input))
    _check_tensors("output", engine.outputs, spec_of(manifest.output.tensor))
    golden = load_golden(package)
    name = manifest.output.tensor.name
    report = compare(
        golden.outputs[name],
        engine.run(golden.inputs)[name],
        output=manifest.output,
        tolerance=manifest.parity,
    )
    if not report.holds:
        raise ParityError(
            f"{engine.metadata.backend.value} {engine.metadata.version} does not reproduce the "
            f"golden outputs of {manifest.name} {manifest.version}: largest deviation "
            f"{report.max_absolute:.3g}, {report.outside_tolerance} of {report.elements} out of "
            f"tolerance, {report.flips} decisions differ; do not use this engine on this device"
        )
    return report


def _check_tensors(side: str, found: tuple[TensorSpec, ...], wanted: TensorSpec) -> None:
    if found != (wanted,):
        shown = ", ".join(f"{spec.name} {spec.element_type.value} {spec.shape}" for spec in found)
        raise ModelFileError(
            f"the model's {side} is [{shown}], but package.toml says {wanted.name} "
            f"{wanted.element_type.value} {wanted.shape}"
        )
