"""Golden studies through the whole pipeline: what comes out, and what goes into the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.finding import Scored
from edge_runtime.pipeline.trial import examine
from engines.contract import Engine, EngineDescription
from engines.golden_studies import GoldenOutcome, StudyOnDisk
from engines.package import ModelPackage

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """What the model says of one golden study."""

    folder: str
    outcome: GoldenOutcome
    probabilities: Mapping[str, float]
    """By finding; empty where the study was not analysed."""


class RecordingEngine(Engine):
    """Passes on to a loaded engine, and keeps what goes in."""

    def __init__(self, inner: Engine) -> None:
        super().__init__(check_values=True)
        self._inner = inner
        self.given: list[Float32] = []

    def _load(self) -> EngineDescription:
        return EngineDescription(
            metadata=self._inner.metadata, inputs=self._inner.inputs, outputs=self._inner.outputs
        )

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.given.extend(array.copy() for array in inputs.values())
        return self._inner.run(inputs)

    def _free(self) -> None:
        """The inner engine is its owner's."""


def run_studies(
    studies: Sequence[StudyOnDisk], package: ModelPackage, engine: Engine
) -> tuple[StudyResult, ...]:
    """Runs golden studies as a device would.

    Args:
        studies: Of the package.
        package: The model's.
        engine: Loaded.

    Raises:
        EngineError: The engine failed.
    """
    return tuple(_run(study, package, engine) for study in studies)


def _run(study: StudyOnDisk, package: ModelPackage, engine: Engine) -> StudyResult:
    result = examine((file.path for file in study.files), package, engine)
    outcome = GoldenOutcome.NOT_ANALYSED
    probabilities = {}
    if isinstance(result, Scored):
        outcome = GoldenOutcome.SUSPECTED if result.suspected else GoldenOutcome.NOT_SUSPECTED
        probabilities = {score.key: score.probability for score in result.findings}
    return StudyResult(folder=study.study.folder, outcome=outcome, probabilities=probabilities)
