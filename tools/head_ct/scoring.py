"""Runs an exported model over simulated studies with the device's engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.backends import open_engine
from engines.batching import run_batches
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions
from tools.head_ct import recipe
from tools.head_ct.simulate import SimulatedStudy, channels


def outputs_of(
    model: Path, studies: Sequence[SimulatedStudy]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The model's outputs for each study, its slabs along their first axis.

    Raises:
        EngineError: the model cannot be loaded or run.
    """
    file = VerifiedFile(path=model, sha256=hashlib.sha256(model.read_bytes()).hexdigest())
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
        for study in studies:
            yield run_batches(engine, recipe.INPUT, channels(study.slab_hu))
