"""The networks are those of the papers: as many parameters, and they run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from typer.testing import CliRunner

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions
from engines.onnx_checks import read_boundary
from tools.architectures.__main__ import app
from tools.architectures.densenet import densenet121
from tools.architectures.resnet3d import resnet18_3d


def run(
    path: Path, name: str, shape: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    model = VerifiedFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    rng = np.random.default_rng(1)
    with open_engine(Backend.ONNXRUNTIME, model, EngineOptions()) as engine:
        (output,) = engine.run({name: rng.standard_normal(shape, np.float32)}).values()
    return output


def test_densenet_has_the_published_number_of_parameters() -> None:
    # torchvision's densenet121: 3 channels, 1000 classes.
    assert densenet121(channels=3, outputs=1000).parameters == 7_978_856


def test_densenet_for_radiographs_differs_by_its_first_and_last_layer_only() -> None:
    first, last = 64 * 2 * 7 * 7, 1025 * 1000 - 1025 * 18
    assert densenet121().parameters == 7_978_856 - first - last == 6_966_034


def test_resnet_has_the_published_number_of_parameters() -> None:
    # torchvision's r3d_18: stem of 3 x 7 x 7, 3 channels, 400 classes.
    built = resnet18_3d(channels=3, outputs=400, stem_depth=3)
    assert built.parameters == 33_371_472


def test_resnet_for_ct_has_the_stem_of_hara() -> None:
    # 33.2 M without the classifier, as Hara's table has it.
    assert resnet18_3d(channels=3, outputs=1).parameters - 513 == 33_203_904


def test_both_run_and_answer_each_item_for_itself(tmp_path: Path) -> None:
    for command, name, shape, outputs in (
        (["densenet121", "--side", "64"], "image", (3, 1, 64, 64), 18),
        (["resnet18-3d", "--slices", "8", "--side", "32"], "volume", (2, 1, 8, 32, 32), 1),
    ):
        path = tmp_path / f"{command[0]}.onnx"
        result = CliRunner().invoke(app, [*command, "--out", str(path)])
        assert "parameters" in result.output
        boundary = read_boundary(path.read_bytes())
        assert boundary.inputs[0].shape == (-1, *shape[1:])
        output = run(path, name, shape)
        assert output.shape == (shape[0], outputs)
        assert np.ptp(output, axis=0).min() > 0


def test_the_same_seed_gives_the_same_bytes_and_another_others() -> None:
    def digest(seed: int) -> bytes:
        built: onnx.ModelProto = densenet121(side=32, outputs=1, seed=seed).model
        return hashlib.sha256(built.SerializeToString()).digest()

    assert digest(1) == digest(1) != digest(2)
