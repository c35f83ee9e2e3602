"""From a study's stored pixels to the model's outputs, without coming back from the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from simulators.fused import by_numpy, plan_of
from simulators.tensorrt_rig import TensorRtRig

from dicom_node.headers import read_headers
from edge_runtime.pipeline.decode import read_pixels
from edge_runtime.pipeline.preprocess import stored_image
from engines.contract import EngineOptions
from engines.kernel.staging import FusedStaging
from engines.loading import load_package
from engines.onnxruntime_engine import OnnxRuntimeEngine
from engines.preprocessing.values import StoredImage
from engines.shipped import shipped_packages

STUDIES = {"head_ct_phantom": "bleed", "paediatric_cxr_pneumonia": "chest-two-views-patchy-117"}
MOST_DEVIATION = 1e-4
"""Of a logit; the packages allow 1e-3."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[TensorRtRig]:
    made = TensorRtRig(tmp_path / "plans")
    yield made
    assert made.leftovers() == {}


def images_of(study: Path) -> list[StoredImage]:
    images = []
    for path in sorted(study.iterdir()):
        header, _ = read_headers(path)
        images.append(stored_image(read_pixels(path, header), header))
    return images


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_staged_study_has_the_outputs_of_the_reference(
    rig: TensorRtRig, host_image: bytes, name: str
) -> None:
    package = load_package(shipped_packages()[name])
    steps, rule = package.manifest.preprocess, package.manifest.input
    images = images_of(package.folder / "golden" / "studies" / STUDIES[name])
    tensor = by_numpy(images, steps, rule.layout)
    with OnnxRuntimeEngine(package.model, EngineOptions()) as reference:
        expected = reference.run({rule.name: tensor})
    with (
        rig.open(package.model, most_items=len(tensor)) as engine,
        FusedStaging(engine.device, plan_of(steps, rule.layout), host_image) as staging,
    ):
        for _ in range(4):  # also as a graph
            made = staging.whole_input(staging.add_all(images))
            outputs = engine.run_staged({rule.name: made})
            for output, values in expected.items():
                np.testing.assert_allclose(outputs[output], values, atol=MOST_DEVIATION)
