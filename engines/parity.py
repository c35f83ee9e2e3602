"""Does this engine, on this device, give the numbers that the package's maker saw?

Two conditions, both needed: every output lies within the package's tolerance of the golden one,
and no decision at the operating point differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.batching import run_batches
from engines.calibration import suspected_items
from engines.contract import Engine, TensorSpec, all_finite
from engines.errors import EngineOutputError, ModelFileError, ParityError
from engines.golden import load_golden, spec_of
from engines.loading import LoadedPackage
from engines.package import ModelPackage, TensorRule


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
    reference: Mapping[str, NDArray[np.float32]],
    candidate: Mapping[str, NDArray[np.float32]],
    package: ModelPackage,
) -> ParityReport:
    """Compares two engines' outputs, by tensor name, for the same inputs.

    Raises:
        EngineOutputError: The shapes differ, or a value is NaN or infinite.
    """
    flips = elements = outside = 0
    largest = 0.0
    for name, wanted in reference.items():
        if wanted.shape != candidate[name].shape:
            raise EngineOutputError(
                f"output {name!r} has shape {candidate[name].shape}, the reference {wanted.shape}"
            )
        if not (all_finite(wanted) and all_finite(candidate[name])):
            raise EngineOutputError(f"output {name!r} holds NaN or infinity")
        deviation = np.abs(candidate[name].astype(np.float64) - wanted)
        allowed = package.parity.absolute + package.parity.relative * np.abs(wanted)
        elements += wanted.size
        largest = max(largest, float(deviation.max(initial=0.0)))
        outside += int(np.count_nonzero(deviation > allowed))
    for rule in package.findings:
        differs = suspected_items(reference, rule) != suspected_items(candidate, rule)
        flips += int(np.count_nonzero(differs))
    return ParityReport(
        elements=elements, max_absolute=largest, outside_tolerance=outside, flips=flips
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
    _check_tensors("inputs", engine.inputs, (manifest.input,))
    _check_tensors("outputs", engine.outputs, manifest.outputs)
    golden = load_golden(package)
    outputs = run_batches(engine, manifest.input, golden.inputs[manifest.input.name])
    report = compare(golden.outputs, outputs, manifest)
    if not report.holds:
        raise ParityError(
            f"{engine.metadata.backend.value} {engine.metadata.version} does not reproduce the "
            f"golden outputs of {manifest.name} {manifest.version}: largest deviation "
            f"{report.max_absolute:.3g}, {report.outside_tolerance} of {report.elements} out of "
            f"tolerance, {report.flips} decisions differ; do not use this engine on this device"
        )
    return report


def _check_tensors(
    side: str, found: tuple[TensorSpec, ...], wanted: tuple[TensorRule, ...]
) -> None:
    promised = tuple(spec_of(rule) for rule in wanted)
    if found != promised:
        raise ModelFileError(
            f"the model's {side} are [{_shown(found)}], but package.toml says [{_shown(promised)}]"
        )


def _shown(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.element_type.value} {spec.shape}" for spec in specs)
