"""Scores radiographs as a device does: its preprocessing, its engine, its arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.backends import open_engine
from engines.batching import run_batches
from engines.calibration import item_logits
from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
from engines.package import Calibration, ModelPackage, OperatingPoint
from tools.paediatric_cxr import recipe

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

UNCALIBRATED = recipe.manifest(
    Calibration(slope=1.0, intercept=0.0), OperatingPoint(threshold=0.5, allowed=(0.01, 0.99))
)
"""Gives logits as the network has them."""


def verified(model: Path) -> VerifiedFile:
    """A model that was just made, as the engine wants it."""
    return VerifiedFile(path=model, sha256=hashlib.sha256(model.read_bytes()).hexdigest())


@contextmanager
def scorer(model: Path) -> Iterator[Scorer]:
    """The model in ``model``, loaded.

    Raises:
        EngineError: it cannot be loaded.
    """
    with open_engine(Backend.ONNXRUNTIME, verified(model), EngineOptions()) as engine:
        yield Scorer(engine)


class Scorer:
    """A loaded model."""

    def __init__(self, engine: Engine, package: ModelPackage = UNCALIBRATED) -> None:
        """Keep the engine, which the caller closes.

        Args:
            engine: loaded.
            package: whose input and finding it is.
        """
        self._engine = engine
        self._package = package

    def of_radiographs(self, radiographs: Sequence[NDArray[np.uint8]]) -> Float64:
        """Logits of radiographs, each (rows, columns) of any size."""
        return self.of_pictures(np.stack([recipe.picture(pixels) for pixels in radiographs]))

    def of_pictures(self, pictures: Float32) -> Float64:
        """Logits of pictures (N, rows, columns) that are normalised to 0 to 1."""
        items = recipe.items(pictures)
        outputs = run_batches(self._engine, self._package.input, items)
        return item_logits(outputs, self._package.finding(recipe.FINDING))


def probabilities(logits: Float64, calibration: Calibration) -> Float64:
    """Calibrated, for many logits at once."""
    scaled = calibration.slope * logits + calibration.intercept
    chances: Float64 = 1 / (1 + np.exp(-np.clip(scaled, -700, 700)))
    return chances
