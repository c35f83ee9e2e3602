"""Runners compute what the package's golden outputs say, each in a process of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.golden import load_golden
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages
from tools.bench.engine.errors import PeerUnfitError, RunnerFailedError
from tools.bench.engine.job import Job
from tools.bench.engine.names import RunnerName
from tools.bench.engine.process import RunnerProcess
from tools.bench.engine.runners import begin
from tools.bench.engine.torch_model import torch_module

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch, a peer of the benchmark, is not installed",
)


@pytest.fixture(params=sorted(shipped_packages()))
def package(request: pytest.FixtureRequest) -> LoadedPackage:
    return load_package(shipped_packages()[request.param])


def job_of(package: LoadedPackage, folder: Path) -> Job:
    return Job(
        package=str(package.folder),
        plans=str(folder / "engines"),
        threads=1,
        precision="fp32",
        gpu=0,
        memory_bytes=1 << 28,
        most_items=32,
    )


@pytest.mark.parametrize(
    "name",
    [
        RunnerName.ONNXRUNTIME,
        RunnerName.BARE,
        RunnerName.DEFAULTS,
        pytest.param(RunnerName.TORCH, marks=needs_torch),
    ],
)
def test_every_runner_computes_the_same(
    name: RunnerName, package: LoadedPackage, tmp_path: Path
) -> None:
    golden = load_golden(package)
    with begin(name, package, job_of(package, tmp_path)) as runner:
        outputs = runner.run(golden.inputs[package.manifest.input.name].copy())
    for rule, output in zip(package.manifest.outputs, outputs, strict=True):
        np.testing.assert_allclose(output, golden.outputs[rule.name], atol=1e-3)


def test_the_bare_loop_says_where_its_time_goes(package: LoadedPackage, tmp_path: Path) -> None:
    batch = load_golden(package).inputs[package.manifest.input.name][:1].copy()
    with begin(RunnerName.BARE, package, job_of(package, tmp_path)) as runner:
        assert runner.profile is not None
        layers = runner.profile(batch)
    assert "Conv" in {layer.operator for layer in layers}
    assert sum(layer.share for layer in layers) == pytest.approx(1.0)
    assert layers[0].share == max(layer.share for layer in layers)


@needs_torch
def test_an_operator_that_is_not_translated_is_named() -> None:
    graph = helper.make_graph(
        [helper.make_node("Erf", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))],
    )
    model: onnx.ModelProto = helper.make_model(graph)
    with pytest.raises(PeerUnfitError, match="Erf"):
        torch_module(model.SerializeToString())


def test_a_runner_process_loads_runs_and_tells_its_cost(tmp_path: Path) -> None:
    package = load_package(shipped_packages()["head_ct_phantom"])
    with RunnerProcess(RunnerName.ONNXRUNTIME, job_of(package, tmp_path), tmp_path) as process:
        ready = process.wait_ready()
        assert not isinstance(ready, str)
        assert ready.max_absolute < 1e-3
        assert ready.batch is None
        timed = process.time(2, seconds=0.01, least=3)
        assert len(timed.latencies_us) >= 3
        assert timed.cpu_s > 0
        assert timed.streamed_items_per_s is None
        assert process.layers(1) == ()
        assert process.peak_rss_bytes > 20_000_000


def test_a_runner_that_has_no_gpu_says_so_and_no_more(tmp_path: Path) -> None:
    package = load_package(shipped_packages()["head_ct_phantom"])
    with RunnerProcess(RunnerName.BARE_CUDA, job_of(package, tmp_path), tmp_path) as process:
        refused = process.wait_ready()
        if not isinstance(refused, str):
            pytest.skip("this machine's ONNX Runtime has a GPU")
        assert refused
        with pytest.raises(RunnerFailedError, match="has ended"):
            process.time(1, seconds=0.01, least=1)
