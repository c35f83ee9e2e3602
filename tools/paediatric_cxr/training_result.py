"""What the steps before the package hand on, as JSON beside ``model.onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from engines.fields import ClosedModel
from engines.package import Calibration, ModelPackage, OperatingPoint
from tools.paediatric_cxr import recipe

MODEL_FILE = "model.onnx"
TRAINING_FILE = "training.json"
CALIBRATION_FILE = "calibration.json"


class TrainingResult(ClosedModel):
    """``training.json``."""

    seed: int
    radiographs: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=1)]
    parameters: Annotated[int, Field(ge=1)]
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the network's parameters in order, before export."""


class CalibrationResult(ClosedModel):
    """``calibration.json``."""

    radiographs: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)]
    target_sensitivity: Annotated[float, Field(gt=0, lt=1)]
    calibration: Calibration
    operating_point: OperatingPoint


def read_manifest(folder: Path) -> ModelPackage:
    """The package of the model in ``folder``, once it is calibrated."""
    text = (folder / CALIBRATION_FILE).read_text("utf-8")
    result = CalibrationResult.model_validate_json(text)
    return recipe.manifest(result.calibration, result.operating_point)
