"""Does this engine, on this device, give the numbers that the package's maker saw?

Two conditions, both needed: every output lies within the package's tolerance of the golden one,
and no decision at the operating point differs. ``engines.proving`` asks more of an engine that is
not the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.batching import run_batches
from engines.calibration import suspected_items
from engines.contract import Engine, Precision, TensorSpec, all_finite
from engines.errors import EngineOutputError, ModelFileError, ParityError
from engines.golden import load_golden, spec_of
from engines.loading import LoadedPackage
from engines.package import ModelPackage, TensorRule, Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How far a candidate's outputs are from the reference's."""

    elements: int
    max_absolute: float
    """Largest |candidate - reference|."""
    cosine: float
    """Of the angle between candidate and reference, 1 when they point the same way; of the output
    where it is smallest."""
    outside_tolerance: int
    """Elements with |candidate - reference| > absolute + relative * |reference|."""
    flips: int
    """Elements whose decision at the operating point differs."""

    @property
    def holds(self) -> bool:
        """True when nothing is out of tolerance and no decision differs."""
        return self.outside_tolerance == 0 and self.flips == 0


def tolerance_of(package: ModelPackage, precision: Precision) -> Tolerance:
    """Returns how far the outputs of an engine of this precision may be from the reference's.

    Never less than in FP32: a model with Q/DQ nodes computes in INT8 in either precision, and what
    its maker allows for that stands in ``absolute``.
    """
    full, half = package.parity, package.parity.fp16
    if precision is Precision.FP32:
        return Tolerance(absolute=full.absolute, relative=full.relative)
    return Tolerance(
        absolute=max(full.absolute, half.absolute), relative=max(full.relative, half.relative)
    )


def compare(
    reference: Mapping[str, NDArray[np.float32]],
    candidate: Mapping[str, NDArray[np.float32]],
    package: ModelPackage,
    precision: Precision = Precision.FP32,
) -> ParityReport:
    """Compares two engines' outputs, by tensor name, for the same inputs.

    Args:
        reference: What is right.
        candidate: What is to be judged.
        package: Whose tolerance and operating points hold.
        precision: Of the candidate.

    Raises:
        EngineOutputError: The shapes differ, or a value is NaN or infinite.
    """
    tolerance = tolerance_of(package, precision)
    flips = elements = outside = 0
    largest, cosine = 0.0, 1.0
    for name, wanted in reference.items():
        found = candidate[name]
        if wanted.shape != found.shape:
            raise EngineOutputError(
                f"output {name!r} has shape {found.shape}, the reference {wanted.shape}"
            )
        if not (all_finite(wanted) and all_finite(found)):
            raise EngineOutputError(f"output {name!r} holds NaN or infinity")
        deviation = np.abs(found.astype(np.float64) - wanted)
        allowed = tolerance.absolute + tolerance.relative * np.abs(wanted)
        elements += wanted.size
        largest = max(largest, float(deviation.max(initial=0.0)))
        cosine = min(cosine, cosine_of(wanted, found))
        outside += int(np.count_nonzero(deviation > allowed))
    for rule in package.findings:
        differs = suspected_items(reference, rule) != suspected_items(candidate, rule)
        flips += int(np.count_nonzero(differs))
    return ParityReport(
        elements=elements,
        max_absolute=largest,
        cosine=cosine,
        outside_tolerance=outside,
        flips=flips,
    )


def cosine_of(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Returns the cosine of the angle between two arrays of finite numbers, taken as vectors.

    1 where both are all zero, 0 where only one is.
    """
    left, right = (array.astype(np.float64).ravel() for array in (first, second))
    lengths = float(np.linalg.norm(left)), float(np.linalg.norm(right))
    if 0.0 in lengths:
        return float(lengths[0] == lengths[1])
    # Each is divided for itself: the product of two lengths may be beyond the largest double.
    return float(np.clip(np.dot(left / lengths[0], right / lengths[1]), -1.0, 1.0))


def check_parity(
    engine: Engine, package: LoadedPackage, precision: Precision = Precision.FP32
) -> ParityReport:
    """Runs the golden inputs through a loaded engine.

    Args:
        engine: Loaded, with the model of this package.
        package: Whose golden tensors, tolerance and operating points hold.
        precision: In which the engine computes.

    Returns:
        The report, which holds.

    Raises:
        GoldenFileError: The golden files are bad.
        ModelFileError: The model's tensors are not those of ``package.toml``.
        ParityError: The engine does not reproduce the golden outputs.
        EngineError: The engine failed.
    """
    manifest = package.manifest
    check_tensors(engine, manifest)
    golden = load_golden(package)
    outputs = run_batches(engine, manifest.input, golden.inputs[manifest.input.name])
    report = compare(golden.outputs, outputs, manifest, precision)
    if not report.holds:
        raise ParityError(
            f"{engine.metadata.backend.value} {engine.metadata.version} does not reproduce the "
            f"golden outputs of {manifest.name} {manifest.version}: largest deviation "
            f"{report.max_absolute:.3g}, {report.outside_tolerance} of {report.elements} out of "
            f"tolerance, {report.flips} decisions differ; do not use this engine on this device"
        )
    return report


def check_tensors(engine: Engine, package: ModelPackage) -> None:
    """Checks that a loaded engine takes and gives the tensors of ``package.toml``.

    Raises:
        ModelFileError: It does not.
    """
    _check_side("inputs", engine.inputs, (package.input,))
    _check_side("outputs", engine.outputs, package.outputs)


def _check_side(side: str, found: tuple[TensorSpec, ...], wanted: tuple[TensorRule, ...]) -> None:
    promised = tuple(spec_of(rule) for rule in wanted)
    if found != promised:
        raise ModelFileError(
            f"the model's {side} are [{_shown(found)}], but package.toml says [{_shown(promised)}]"
        )


def _shown(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.element_type.value} {spec.shape}" for spec in specs)
