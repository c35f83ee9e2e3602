"""A small but complete model package, built from nothing for each test; and the fake libcuda."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from simulators.fake_cuda.building import FakeCuda, build_fake_cuda, why_not
from simulators.model_card import CARD_TOML

from engines.checksums import VerifiedFile
from engines.contract import CudaLibrary
from engines.device.opening import installed_libraries
from engines.writing import write_checksums

PACKAGE_TOML = """
format = 1
name = "bright_phantom"
version = "1.2.3"
title = "BRIGHT"
intended_use = "Tests."
disclaimer = "For tests only."
demonstration = true
procedure = { value = "77477000", scheme = "SCT", meaning = "Computed tomography" }

[selection]
modalities = ["CT"]
sop_class_uids = ["1.2.840.10008.5.1.4.1.1.2"]
soft_kernels = ["^h[0-9]+"]

[gate]
contrast = "forbidden"
age_years = [18, 120]

[[preprocess]]
step = "rescale"
padding = -1000

[[preprocess]]
step = "resample_in_plane"
rows = 8
columns = 8
pixel_mm = 24.0
fill = -1000

[[preprocess]]
step = "average_slabs"
thickness_mm = 5.0

[[preprocess]]
step = "window_channels"
windows = [{ low = 0, high = 80 }, { low = -20, high = 180 }]

[input]
name = "slabs"
dtype = "float32"
shape = [-1, 2, 8, 8]

[[outputs]]
name = "logits"
dtype = "float32"
shape = [-1]

[[findings]]
key = "bright"
code = { value = "1386000", scheme = "SCT", meaning = "Intracranial haemorrhage" }
urgency = "critical"
tensor = "logits"
aggregation = { top = 2 }
calibration = { slope = 2.0, intercept = 0.0 }
operating_point = { threshold = 0.5, allowed = [0.4, 0.6] }
"""


def _model(
    nodes: list[onnx.NodeProto] | None = None,
    *,
    opset: int = 17,
    output: str = "logits",
    input_shape: tuple[str | int, ...] = ("n", 2, 8, 8),
) -> onnx.ModelProto:
    """Logit of each slab = 8 x (mean of its values - 0.5), unless other nodes are given."""
    if nodes is None:
        nodes = [
            helper.make_node("ReduceMean", ["slabs"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "half"], ["centred"]),
            helper.make_node("Mul", ["centred", "eight"], [output]),
        ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("slabs", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ("n",))],
        [
            helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("eight", TensorProto.FLOAT, [], [8.0]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


def _golden() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Six slabs, three on each side of the operating point, and their exact logits."""
    levels = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], dtype=np.float32)
    inputs = np.ascontiguousarray(np.broadcast_to(levels[:, None, None, None], (6, 2, 8, 8)))
    return inputs, (levels - np.float32(0.5)) * np.float32(8)


class PackageBuilder:
    """Writes a good package; a test then spoils one part and seals again, or does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = PACKAGE_TOML
        self.card = CARD_TOML
        self.model = _model().SerializeToString()
        self.golden_inputs, self.golden_outputs = _golden()
        self.evaluation: dict[str, Any] = {}

    def write(self) -> Path:
        """Writes every file and seals them."""
        (self.folder / "golden").mkdir(parents=True, exist_ok=True)
        (self.folder / "model.onnx").write_bytes(self.model)
        (self.folder / "package.toml").write_text(self.manifest, encoding="utf-8")
        (self.folder / "card.toml").write_text(self.card, encoding="utf-8")
        (self.folder / "evaluation.json").write_text(
            json.dumps(self._evaluation()), encoding="utf-8"
        )
        for name, key, array in (
            ("inputs", "slabs", self.golden_inputs),
            ("outputs", "logits", self.golden_outputs),
        ):
            (self.folder / "golden" / f"{name}.npz").write_bytes(_npz({key: array}))
        return self.seal()

    def seal(self) -> Path:
        """Lists the files as they are now."""
        write_checksums(self.folder)
        return self.folder

    def replace(self, relative: str, content: bytes) -> Path:
        """Writes the package with one file's content replaced."""
        self.write()
        (self.folder / relative).write_bytes(content)
        return self.seal()

    def _evaluation(self) -> dict[str, Any]:
        return {
            "model_version": "1.2.3",
            "model_sha256": hashlib.sha256(self.model).hexdigest(),
            "thresholds": {"bright": 0.5},
            "test_set": "Generated.",
            "positives": 10,
            "negatives": 10,
            "estimates": [
                {
                    "key": "sensitivity",
                    "label": "Sensitivity",
                    "value": 0.9,
                    "lower": 0.6,
                    "upper": 0.98,
                    "cases": 10,
                }
            ],
        } | self.evaluation


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory: pytest.TempPathFactory) -> FakeCuda:
    if (reason := why_not()) is not None:
        pytest.skip(f"the fake libcuda {reason}")
    return build_fake_cuda(tmp_path_factory.mktemp("fake-cuda"))


@pytest.fixture(params=list(CudaLibrary), ids=lambda library: library.value)
def installed(request: pytest.FixtureRequest) -> CudaLibrary:
    """Each library that talks to a driver, in a process of its own."""
    chosen: CudaLibrary = request.param
    if chosen not in installed_libraries():
        pytest.skip(f"{chosen.value} is not installed here")
    return chosen


@pytest.fixture
def builder(tmp_path: Path) -> PackageBuilder:
    return PackageBuilder(tmp_path / "package")


@pytest.fixture(scope="session")
def make_model() -> Callable[..., onnx.ModelProto]:
    return _model


@pytest.fixture(scope="session")
def make_npz() -> Callable[[dict[str, NDArray[Any]]], bytes]:
    return _npz


@pytest.fixture
def model_file(tmp_path: Path) -> Callable[[onnx.ModelProto], VerifiedFile]:
    def write(model: onnx.ModelProto) -> VerifiedFile:
        content = model.SerializeToString()
        path = tmp_path / f"{hashlib.sha256(content).hexdigest()}.onnx"
        path.write_bytes(content)
        return VerifiedFile(path=path, sha256=hashlib.sha256(content).hexdigest())

    return write
