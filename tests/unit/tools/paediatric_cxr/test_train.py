"""Needs the extra ``train``; without PyTorch there is nothing here to test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="the extra 'train' is not installed")


def train_a_little(data: Path, out: Path, seed: int) -> str:
    from tools.paediatric_cxr.train import main  # noqa: PLC0415 - imports torch

    main(["--data", str(data), "--out", str(out), "--seed", str(seed), "--epochs", "1"])
    return str(json.loads((out / "training.json").read_text())["weights_sha256"])


@pytest.mark.filterwarnings("ignore")  # PyTorch warns about its own exporter
def test_a_seed_decides_the_weights(drawn_data: Path, tmp_path: Path) -> None:
    first = train_a_little(drawn_data, tmp_path / "1", 1)

    assert train_a_little(drawn_data, tmp_path / "again", 1) == first
    assert train_a_little(drawn_data, tmp_path / "2", 2) != first
    onnx.checker.check_model(str(tmp_path / "1" / "model.onnx"), full_check=True)


def test_a_varied_picture_stays_a_picture_and_the_seed_decides_it() -> None:
    from tools.paediatric_cxr.augment import vary  # noqa: PLC0415 - imports torch

    pictures = torch.rand(6, 112, 112)
    one, again, other = (
        vary(pictures.clone(), np.random.default_rng(seed)).numpy() for seed in (1, 1, 2)
    )

    assert one.shape == (6, 112, 112)
    assert one.min() >= 0
    assert one.max() <= 1
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).mean() > 0.05
