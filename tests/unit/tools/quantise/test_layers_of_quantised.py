"""What INT8 does to each layer can be seen, and a layer that was quantised wrongly is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines.backends import open_engine
from engines.checksums import MAX_FILE_BYTES, VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
from engines.golden import load_golden
from engines.layers import LayerReport, Side, compare_layers
from engines.loading import load_package
from engines.shipped import shipped_packages
from tools.quantise.methods import Method
from tools.quantise.network import quantise_model

PACKAGE = load_package(shipped_packages()["paediatric_cxr_pneumonia"])
RULE = PACKAGE.manifest.input
GIVEN = load_golden(PACKAGE).inputs[RULE.name]
MODEL = PACKAGE.model.read(MAX_FILE_BYTES)
BROKEN = "/features/features.7/Conv_output_0"


@pytest.fixture(scope="module")
def quantised() -> bytes:
    return quantise_model(MODEL, RULE, GIVEN, Method.MINMAX).model


def opened(file: VerifiedFile) -> Engine:
    return open_engine(Backend.ONNXRUNTIME, file, EngineOptions(check_values=False))


def compared(candidate: bytes, limit: float) -> LayerReport:
    return compare_layers(
        Side(model=candidate, open=opened),
        Side(model=MODEL, open=opened),
        {RULE.name: GIVEN},
        limit=limit,
    )


def test_every_layer_of_a_sound_one_is_a_few_steps_off(quantised: bytes) -> None:
    report = compared(quantised, 0.1)
    assert report.culprit is None
    convolutions = [layer for layer in report.layers if layer.operator == "Conv"]
    assert len(convolutions) == 10
    assert all(0 < layer.relative < 0.1 and layer.cosine > 0.99 for layer in convolutions)


def test_a_closer_look_finds_the_first_layer_that_is_off_at_all(quantised: bytes) -> None:
    culprit = compared(quantised, 1e-4).culprit
    assert culprit is not None
    assert (culprit.operator, culprit.tensor) == ("Conv", "/features/features.0/Conv_output_0")


def test_a_layer_whose_scale_is_wrong_is_the_culprit(quantised: bytes) -> None:
    model = onnx.load_model_from_string(quantised)
    (layer,) = (node for node in model.graph.node if BROKEN in node.output)
    (weight,) = (node for node in model.graph.node if layer.input[1] in node.output)
    (scale,) = (each for each in model.graph.initializer if each.name == weight.input[1])
    wrong = numpy_helper.to_array(scale) * np.float32(1.5)
    scale.CopyFrom(numpy_helper.from_array(wrong, scale.name))
    culprit = compared(model.SerializeToString(), 0.1).culprit
    assert culprit is not None
    assert culprit.tensor == BROKEN
    assert culprit.relative > 0.3
