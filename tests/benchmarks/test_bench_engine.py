"""The benchmark of engines measures what it says; how fast is not asked here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from tools.bench.engine.names import RunnerName
from tools.cli import app

QUICK = ("--rounds", "2", "--seconds", "0.05", "--batch", "1", "--batch", "4")


def _run(*arguments: str) -> dict[str, Any]:
    answer = CliRunner().invoke(app, [*arguments, *QUICK, "--json"])
    assert answer.exit_code == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    assert found["benchmark"] == "engine"
    return found


def test_our_engine_is_measured_on_every_shipped_model() -> None:
    found = _run(
        *("bench", "engine", "--engine", "onnxruntime"),
        *("--package", "head_ct_phantom", "--package", "paediatric_cxr_pneumonia"),
    )
    assert [each["model"].split()[0] for each in found["models"]] == [
        "head_ct_phantom",
        "paediatric_cxr_pneumonia",
    ]
    for model in found["models"]:
        assert [(cell["runner"], cell["batch"]) for cell in model["cells"]] == [
            ("onnxruntime", 1),
            ("onnxruntime", 4),
        ]
        for cell in model["cells"]:
            latency = cell["latency_us"]
            assert 0 < latency["lowest"] <= latency["p50"] <= latency["p95"] <= latency["highest"]
            assert cell["items_per_s"] > 0
        runner = model["runners"]["onnxruntime"]
        assert runner["max_absolute"] < 1e-3
        assert runner["peak_rss_mb"] > 20


def test_peers_stand_beside_ours_and_whoever_is_not_here_says_why() -> None:
    peers = ("--peer", "bare-onnxruntime", "--peer", "bare-onnxruntime-cuda")
    (model,) = _run("engines", "bench", *peers, "--layers")["models"]
    named = {*model["runners"], *model["left_out"]}
    assert {"onnxruntime", "tensorrt", "bare-onnxruntime", "bare-onnxruntime-cuda"} <= named
    assert all(model["left_out"].values())
    assert {RunnerName(name) for name in named}, "every name is one of ours"
    ratios = {(each["ours"], each["peer"], each["batch"]) for each in model["ratios"]}
    assert ("onnxruntime", "bare-onnxruntime", 4) in ratios
    assert model["layers"]["bare-onnxruntime"]
    for runner in model["runners"].values():
        assert runner["max_absolute"] < 1e-2, "who computes something else is no peer"


def test_an_engine_that_is_not_here_is_a_failure_that_says_why() -> None:
    answer = CliRunner().invoke(app, ["engines", "bench", *QUICK, "--engine", "tensorrt", "--json"])
    if answer.exit_code == 0:
        pytest.skip("this machine has TensorRT")
    assert answer.exit_code == 1
    (model,) = json.loads(answer.stdout)["models"]
    assert "driver" in model["left_out"]["tensorrt"]
    assert model["cells"] == []
