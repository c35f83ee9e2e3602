"""From a package in FP32 to its model in INT8, and what that does to its decisions."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.backends import open_engine
from engines.batching import run_batches
from engines.checksums import MAX_FILE_BYTES, VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
from engines.golden import GoldenSet, load_golden
from engines.golden_studies import StudyOnDisk, load_golden_studies
from engines.loading import LoadedPackage
from engines.onnx_checks import check_model, read_boundary
from engines.parity import ParityReport, compare
from tools.quantise.methods import Method
from tools.quantise.network import Quantised, quantise_model, rounding_deviation
from tools.quantise.studies import RecordingEngine, StudyResult, run_studies
from tools.quantise.tensors import read_tensors, thinned

Float32 = NDArray[np.float32]

MOST_CALIBRATION_ITEMS = 256
"""The library keeps what all layers give for all of them: a few MB each."""
COST_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What its maker chooses.

    Attributes:
        method: How ranges are taken from the calibration's tensors.
        tensors: Folder with inputs to calibrate with; None: golden inputs and golden studies.
        keep: Names of nodes that stay in FP32, beside those that do anyway.
    """

    method: Method = Method.MINMAX
    tensors: Path | None = None
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StudyChange:
    """A golden study before and after."""

    before: StudyResult
    after: StudyResult

    @property
    def is_flip(self) -> bool:
        """Whether the outcome is another."""
        return self.before.outcome is not self.after.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What INT8 does to the numbers and decisions of a package."""

    calibration_items: int
    layers: int
    """Convolutions and matrix products in INT8."""
    kept: tuple[str, ...]
    bytes_before: int
    bytes_after: int
    golden: ParityReport
    """Against the FP32 outputs; its tolerance is FP32's, and is left by INT8."""
    rounding: float
    """How far two engines are apart that run the same Q/DQ model."""
    studies: tuple[StudyChange, ...]
    cost: float
    """Processor time of a run, as a fraction of FP32's, on this machine."""

    @property
    def flips(self) -> int:
        """Decisions that differ at the operating point: golden items and golden studies."""
        return self.golden.flips + sum(change.is_flip for change in self.studies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """All that the new package needs."""

    quantised: Quantised
    golden: GoldenSet
    """The inputs of before, with the new model's outputs."""
    effect: Effect


def quantise_package(package: LoadedPackage, recipe: Recipe) -> Quantisation:
    """Quantises a package's model and runs its golden inputs and studies through both.

    Raises:
        PackageError: The package is bad, or cannot be quantised so.
        EngineError: A model does not run.
    """
    check_model(package)
    model = package.model.read(MAX_FILE_BYTES)
    rule, manifest = package.manifest.input, package.manifest
    golden, studies = load_golden(package), load_golden_studies(package)
    given = golden.inputs[rule.name]
    with open_engine(Backend.ONNXRUNTIME, package.model, EngineOptions()) as before:
        results, items = _before(before, package, studies, given, recipe)
        quantised = quantise_model(model, rule, items, recipe.method, recipe.keep)
        # What the library wrote is no better than what a stranger sends.
        read_boundary(quantised.model)
        with open_made(quantised.model) as after:
            outputs = run_batches(after, rule, given)
            later = run_studies(studies, manifest, after)
            effect = Effect(
                calibration_items=len(items),
                layers=quantised.layers,
                kept=quantised.kept,
                bytes_before=len(model),
                bytes_after=len(quantised.model),
                golden=compare(golden.outputs, outputs, manifest),
                rounding=rounding_deviation(quantised.model, rule, np.concatenate([given, items])),
                studies=tuple(map(StudyChange, results, later)),
                cost=_cost(before, after, package, given),
            )
    return Quantisation(
        quantised=quantised,
        golden=GoldenSet(inputs=golden.inputs, outputs=outputs),
        effect=effect,
    )


@contextlib.contextmanager
def open_made(model: bytes) -> Iterator[Engine]:
    """A model that was just made, loaded; its file is gone afterwards.

    Raises:
        EngineError: It does not load.
    """
    with tempfile.TemporaryDirectory(prefix="edge-triage-quantise-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        file = VerifiedFile(path=path, sha256=hashlib.sha256(model).hexdigest())
        with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
            yield engine


def _before(
    engine: Engine,
    package: LoadedPackage,
    studies: Sequence[StudyOnDisk],
    given: Float32,
    recipe: Recipe,
) -> tuple[tuple[StudyResult, ...], Float32]:
    """What comes out in FP32, and the tensors to calibrate with."""
    recording = RecordingEngine(engine)
    with recording:
        results = run_studies(studies, package.manifest, recording)
    if recipe.tensors is not None:
        items = read_tensors(recipe.tensors, package.manifest.input, most=MOST_CALIBRATION_ITEMS)
        return results, items
    items = np.concatenate([given, *recording.given])
    return results, thinned(items, MOST_CALIBRATION_ITEMS)


def _cost(before: Engine, after: Engine, package: LoadedPackage, given: Float32) -> float:
    """The two take turns; of each the quickest run counts."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(COST_ROUNDS):
        for is_after, engine in ((False, before), (True, after)):
            start = time.process_time()
            run_batches(engine, package.manifest.input, given)
            times[is_after].append(time.process_time() - start)
    return min(times[True]) / max(min(times[False]), 1e-9)
