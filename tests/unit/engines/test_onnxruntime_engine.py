from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from onnx import TensorProto, external_data_helper, helper
from simulators.fake_cuda.building import FakeCuda

import engines
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions
from engines.errors import EngineLoadError, EngineUnavailableError
from engines.onnxruntime_engine import PROVIDERS

ModelFile = Callable[[onnx.ModelProto], VerifiedFile]


def convolutional_model() -> onnx.ModelProto:
    random = np.random.default_rng(7)
    weights = random.normal(size=(4, 2, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("ReduceMean", ["r"], ["y"], axes=[1, 2, 3], keepdims=0),
        ],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 2, 32, 32))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n",))],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(),
        EngineOptions(memory_arena=False),
        EngineOptions(spinning=True, intra_op_threads=2),
    ],
    ids=["default", "no arena", "spinning"],
)
def test_it_gives_what_bare_onnxruntime_gives(
    model_file: ModelFile, options: EngineOptions
) -> None:
    model = convolutional_model()
    given = np.random.default_rng(3).normal(size=(5, 2, 32, 32)).astype(np.float32)
    bare = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(["y"], {"x": given})[0]
    with open_engine(Backend.ONNXRUNTIME, model_file(model), options) as engine:
        np.testing.assert_allclose(engine.run({"x": given})["y"], bare, rtol=1e-6, atol=1e-6)


def test_it_runs_on_the_cpu_provider_of_the_installed_version(model_file: ModelFile) -> None:
    with open_engine(
        Backend.ONNXRUNTIME, model_file(convolutional_model()), EngineOptions()
    ) as engine:
        assert engine.metadata.provider == "CPUExecutionProvider"
        assert engine.metadata.version == onnxruntime.__version__


def test_weights_beside_the_model_are_not_read(
    model_file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = convolutional_model()
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    external_data_helper.set_external_data(tensor, "weights.bin", 0, len(content))
    tensor.ClearField("raw_data")
    file = model_file(model)
    (file.path.parent / "weights.bin").write_bytes(content)
    monkeypatch.chdir(file.path.parent)
    with (
        pytest.raises(EngineLoadError),
        open_engine(Backend.ONNXRUNTIME, file, EngineOptions()),
    ):
        pass


def test_an_operator_that_it_does_not_know_is_refused(model_file: ModelFile) -> None:
    model = convolutional_model()
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node[1].domain = "com.example"
    with (
        pytest.raises(EngineLoadError),
        open_engine(Backend.ONNXRUNTIME, model_file(model), EngineOptions()),
    ):
        pass


def test_a_tensor_type_that_the_contract_does_not_know_is_refused(model_file: ModelFile) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "words",
        [helper.make_tensor_value_info("x", TensorProto.STRING, ("n",))],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ("n",))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with (
        pytest.raises(EngineLoadError, match=r"tensor\(string\)"),
        open_engine(Backend.ONNXRUNTIME, model_file(model), EngineOptions()),
    ):
        pass


def test_failures_write_nothing_to_the_terminal(model_file: ModelFile, tmp_path: Path) -> None:
    file = model_file(convolutional_model())
    program = f"""
from pathlib import Path
import numpy as np
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions
from engines.errors import EngineError
model = VerifiedFile(path=Path({str(file.path)!r}), sha256={file.sha256!r})
with open_engine(Backend.ONNXRUNTIME, model, EngineOptions()) as engine:
    try:
        engine._infer({{"x": np.zeros((1, 2, 3), np.float32)}})
    except Exception:
        print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads through /proc")
def test_it_starts_no_more_threads_than_it_was_allowed(model_file: ModelFile) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    file = model_file(convolutional_model())
    before = threads()
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions(intra_op_threads=1)) as engine:
        engine.run({"x": np.zeros((1, 2, 32, 32), dtype=np.float32)})
        assert threads() == before
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions(intra_op_threads=3)) as engine:
        engine.run({"x": np.zeros((1, 2, 32, 32), dtype=np.float32)})
        assert threads() <= before + 2


def test_only_its_adapter_imports_onnxruntime_and_few_import_onnx() -> None:
    importers: dict[str, set[str]] = {"onnxruntime": set(), "onnx": set()}
    root = Path(engines.__file__).parent
    for path in root.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in {"import", "from"}:
                package = words[1].split(".")[0].rstrip(",")
                importers.get(package, set()).add(path.relative_to(root).as_posix())
    checks = {"onnx_checks.py", "onnx_graph.py", "onnx_shapes.py", "onnx_tensors.py"}
    # Each is imported only where it is used: to look into a model, and to build an engine in FP16.
    others = {"onnx_layers.py", "tensorrt/precision.py"}
    assert importers == {"onnxruntime": {"onnxruntime_engine.py"}, "onnx": checks | others}


def test_a_worker_holds_neither_library_before_it_opens_an_engine_and_never_onnx(
    model_file: ModelFile,
) -> None:
    file = model_file(convolutional_model())
    program = f"""
import json, sys
from pathlib import Path
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions
import engines.loading, engines.parity, engines.shipped
before = "onnxruntime" in sys.modules
model = VerifiedFile(path=Path({str(file.path)!r}), sha256={file.sha256!r})
with open_engine(Backend.ONNXRUNTIME, model, EngineOptions()):
    print(json.dumps([before, "onnxruntime" in sys.modules, "onnx" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout) == [False, True, False]


def test_a_back_end_that_does_not_exist_is_an_error_and_never_another_one(
    model_file: ModelFile,
) -> None:
    file = model_file(convolutional_model())
    with pytest.raises(EngineUnavailableError, match="choose one of"):
        open_engine(cast("Backend", "tensorrt"), file, EngineOptions())


def test_a_missing_library_is_named_with_its_remedy(
    model_file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model_file(convolutional_model())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "engines.onnxruntime_engine", raising=False)
    with pytest.raises(EngineUnavailableError, match="pip install onnxruntime"):
        open_engine(Backend.ONNXRUNTIME, file, EngineOptions())


@pytest.fixture
def gpu_wheel() -> str:
    """A folder into which onnxruntime-gpu was installed: it cannot be beside onnxruntime."""
    folder = os.environ.get("EDGE_TRIAGE_ONNXRUNTIME_GPU")
    if folder is None:
        pytest.skip("EDGE_TRIAGE_ONNXRUNTIME_GPU names no folder with onnxruntime-gpu")
    return folder


ON_A_GPU = (Backend.ONNXRUNTIME_CUDA, Backend.ONNXRUNTIME_TENSORRT)


@pytest.mark.parametrize("backend", ON_A_GPU)
def test_a_provider_that_the_installed_library_has_not_is_an_error(
    model_file: ModelFile, backend: Backend
) -> None:
    if PROVIDERS[backend] in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed here")
    with pytest.raises(EngineUnavailableError, match="install onnxruntime-gpu in its place"):
        open_engine(backend, model_file(convolutional_model()), EngineOptions())


@pytest.mark.parametrize("backend", ON_A_GPU)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "no GPU to run on: no CUDA driver can be loaded"),
        (", dla_core=0", "does not run on a deep learning accelerator"),
    ],
)
def test_a_machine_without_gpu_never_runs_the_gpus_engine_on_the_processor(
    model_file: ModelFile, backend: Backend, options: str, words: str, gpu_wheel: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": gpu_wheel}
    printed, errors = opened_with_the_gpu_wheel(model_file, backend, options, environment)
    assert words in printed
    assert errors == ""


@pytest.mark.parametrize("options", ["", ", precision=Precision.FP16"])
@pytest.mark.parametrize(
    ("backend", "library"),
    [
        (Backend.ONNXRUNTIME_CUDA, "libcublasLt.so"),
        (Backend.ONNXRUNTIME_TENSORRT, "libcublas.so"),
    ],
)
def test_a_provider_whose_libraries_are_missing_names_the_first_one(
    model_file: ModelFile,
    backend: Backend,
    library: str,
    options: str,
    *,
    gpu_wheel: str,
    fake_cuda: FakeCuda,
) -> None:
    environment = {**fake_cuda.environment(), "PYTHONPATH": gpu_wheel}
    printed, errors = opened_with_the_gpu_wheel(model_file, backend, options, environment)
    assert f"does not load on this machine ({library}" in printed
    assert errors == ""


def opened_with_the_gpu_wheel(
    model_file: ModelFile, backend: Backend, options: str, environment: dict[str, str]
) -> tuple[str, str]:
    """What a process says that opens an engine."""
    file = model_file(convolutional_model())
    program = f"""
from pathlib import Path
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import AcceleratorOptions, Backend, EngineOptions, Precision
from engines.errors import EngineUnavailableError
model = VerifiedFile(path=Path({str(file.path)!r}), sha256={file.sha256!r})
accelerator = AcceleratorOptions(folder=Path("."){options})
try:
    with open_engine(Backend({backend.value!r}), model, EngineOptions(accelerator=accelerator)):
        print("runs")
except EngineUnavailableError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, done.stderr


def test_loading_the_back_end_leaves_no_trace_of_its_makers_telemetry(tmp_path: Path) -> None:
    """Official builds make a persistent device id and start an uploader as they are imported."""
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    script = (
        "import engines.onnxruntime_engine, pathlib;"
        "print(len(list(pathlib.Path('/proc/self/task').iterdir())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == int(_threads_after_importing_numpy())
    assert list(tmp_path.iterdir()) == []


def _threads_after_importing_numpy() -> str:
    script = "import numpy, pathlib; print(len(list(pathlib.Path('/proc/self/task').iterdir())))"
    return subprocess.run(
        [sys.executable, "-c", script], env={}, capture_output=True, text=True, check=True
    ).stdout
