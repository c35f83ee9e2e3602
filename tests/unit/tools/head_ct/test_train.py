"""Needs the extra ``train``; without PyTorch there is nothing here to test."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch", reason="the extra 'train' is not installed")


def train_a_little(folder: Path, seed: int) -> str:
    from tools.head_ct.train import main  # noqa: PLC0415 - imports torch

    out = folder / f"seed-{seed}"
    main(
        [
            "--out",
            str(out),
            "--data",
            str(folder / "phantoms"),
            "--seed",
            str(seed),
            "--phantoms",
            "4",
            "--matrix",
            "64",
            "--epochs",
            "1",
            "--processes",
            "1",
        ]
    )
    return str(json.loads((out / "training.json").read_text())["weights_sha256"])


@pytest.mark.filterwarnings("ignore")  # PyTorch warns about its own exporter
def test_a_seed_decides_the_weights(tmp_path: Path) -> None:
    first = train_a_little(tmp_path, 1)

    assert train_a_little(tmp_path, 1) == first
    assert train_a_little(tmp_path, 2) != first
    onnx.checker.check_model(str(tmp_path / "seed-1" / "model.onnx"), full_check=True)
