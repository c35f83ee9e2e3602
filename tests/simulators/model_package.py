"""A small model package that works: its probability rises with the brightness of a CT slice."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from engines.loading import LoadedPackage, load_package
from engines.writing import write_checksums
from simulators.model_card import CARD_TOML

_MANIFEST = """
format = 1
name = "{name}"
version = "1.0.0"
title = "BRIGHT"
intended_use = "Tests."
disclaimer = "For tests only."
demonstration = true
procedure = {{ value = "77477000", scheme = "SCT", meaning = "Computed tomography" }}

[selection]
modalities = ["CT"]
sop_class_uids = ["1.2.840.10008.5.1.4.1.1.2"]

[gate]
coverage_mm = [10.0, 500.0]

[[preprocess]]
step = "rescale"
padding = -1000

[[preprocess]]
step = "canonical_orientation"

[[preprocess]]
step = "resample_in_plane"
rows = 8
columns = 8
pixel_mm = 2.0
fill = -1000

{collect}
[input]
name = "slices"
dtype = "float32"
shape = [-1, {channels}, 8, 8]

[[outputs]]
name = "logits"
dtype = "float32"
shape = [-1]

[[findings]]
key = "bright"
code = {{ value = "1386000", scheme = "SCT", meaning = "Intracranial haemorrhage" }}
urgency = "critical"
tensor = "logits"
aggregation = {{ top = 1 }}
calibration = {{ slope = 1.0, intercept = 0.0 }}
operating_point = {{ threshold = 0.5, allowed = [0.4, 0.6] }}
"""


_EACH_IMAGE = """
[[preprocess]]
step = "each_image"
max_images = 2048

[[preprocess]]
step = "window_channels"
windows = [{ low = 0, high = 100 }]
"""
_SLABS = """
[[preprocess]]
step = "average_slabs"
thickness_mm = 10

[[preprocess]]
step = "window_channels"
windows = [{ low = 0, high = 100 }]

[[preprocess]]
step = "neighbours"
radius = 1
"""


def write_model_package(
    folder: Path, *, name: str = "bright", golden_error: float = 0.0, by_slabs: bool = False
) -> LoadedPackage:
    """Write and load a package.

    ``golden_error`` makes its golden outputs wrong by so much; ``by_slabs``: it looks at slabs of
    10 mm and their neighbours, not at each image.
    """
    channels = 3 if by_slabs else 1
    model = _model(channels)
    levels = np.array([0.1, 0.2, 0.8, 0.9], dtype=np.float32)
    inputs = np.ascontiguousarray(np.broadcast_to(levels[:, None, None, None], (4, channels, 8, 8)))
    outputs = (levels - np.float32(0.5)) * np.float32(8 * (1 + golden_error))
    files = {
        "model.onnx": model,
        "package.toml": _MANIFEST.format(
            name=name, channels=channels, collect=_SLABS if by_slabs else _EACH_IMAGE
        ).encode(),
        "card.toml": CARD_TOML.encode(),
        "evaluation.json": _evaluation(model),
        "golden/inputs.npz": _npz("slices", inputs),
        "golden/outputs.npz": _npz("logits", outputs),
    }
    for relative, content in files.items():
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_checksums(folder)
    return load_package(folder)


def _model(channels: int) -> bytes:
    """Logit of each slice = 8 x (mean of its values - 0.5)."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["slices"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "half"], ["centred"]),
            helper.make_node("Mul", ["centred", "eight"], ["logits"]),
        ],
        "bright",
        [helper.make_tensor_value_info("slices", TensorProto.FLOAT, ("n", channels, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n",))],
        [
            helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("eight", TensorProto.FLOAT, [], [8.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _npz(key: str, array: npt.NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **{key: array})
    return stream.getvalue()


def _evaluation(model: bytes) -> bytes:
    estimate = {"value": 0.9, "lower": 0.6, "upper": 0.98, "cases": 10}
    return json.dumps(
        {
            "model_version": "1.0.0",
            "model_sha256": hashlib.sha256(model).hexdigest(),
            "thresholds": {"bright": 0.5},
            "test_set": "Generated.",
            "positives": 10,
            "negatives": 10,
            "estimates": [{"key": "sensitivity", "label": "Sensitivity", **estimate}],
        }
    ).encode()
