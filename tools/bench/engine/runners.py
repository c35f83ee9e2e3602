"""How each runner runs a model: ours through the engine contract, peers as their manuals say."""

from __future__ import annotations

import contextlib
import importlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engines.backends import open_engine
from engines.checksums import MAX_FILE_BYTES
from engines.contract import Backend, Engine
from engines.loading import LoadedPackage
from tools.bench.engine.answers import Layer
from tools.bench.engine.errors import PeerUnfitError
from tools.bench.engine.job import Job
from tools.bench.engine.names import RunnerName
from tools.bench.engine.torch_model import torch_module

Array = NDArray[np.float32]

_PROFILED_RUNS = 20


@runtime_checkable
class LayerTimes(Protocol):
    """An engine that can say how long each of its layers takes."""

    def layer_times(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[tuple[str, float], ...]:
        """Runs once; milliseconds by layer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """A loaded model."""

    software: str
    run: Callable[[Array], Sequence[NDArray[Any]]]
    """One batch; the outputs in the package's order."""
    stream: Callable[[Sequence[Array]], None] | None = None
    """Many batches, whose copies overlap with computing."""
    profile: Callable[[Array], tuple[Layer, ...]] | None = None
    on_gpu: bool = False


@contextlib.contextmanager
def begin(name: RunnerName, package: LoadedPackage, job: Job) -> Iterator[Runner]:
    """Load the package's model.

    Raises:
        EngineError: our engine does not run here.
        PeerUnfitError: the peer does not run here.
    """
    if name.backend is not None:
        with open_engine(name.backend, package.model, job.options()) as engine:
            yield _ours(engine, package)
    elif name.value.startswith("pytorch"):
        yield _torch(package, job, on_gpu="cuda" in name.value, compiles="compile" in name.value)
    else:
        yield _bare(name, package, job)


def _ours(engine: Engine, package: LoadedPackage) -> Runner:
    key = package.manifest.input.name
    names = [rule.name for rule in package.manifest.outputs]
    found = engine.metadata

    def run(batch: Array) -> list[NDArray[Any]]:
        outputs = engine.run({key: batch})
        return [outputs[name] for name in names]

    def stream(batches: Sequence[Array]) -> None:
        for _ in engine.stream({key: batch} for batch in batches):
            pass

    def profile(batch: Array) -> tuple[Layer, ...]:
        return _layers_of_times(cast("LayerTimes", engine).layer_times({key: batch}))

    on_gpu = found.backend is not Backend.ONNXRUNTIME
    return Runner(
        software=f"{found.version} {found.provider}",
        run=run,
        stream=stream if on_gpu else None,
        profile=profile if isinstance(engine, LayerTimes) else None,
        on_gpu=on_gpu,
    )


def _bare(name: RunnerName, package: LoadedPackage, job: Job) -> Runner:
    importlib.import_module("engines.onnxruntime_engine")  # silences what it would tell its maker
    library = importlib.import_module("onnxruntime")
    provider = "CUDAExecutionProvider" if name is RunnerName.BARE_CUDA else "CPUExecutionProvider"
    if provider not in library.get_available_providers():
        raise PeerUnfitError(f"onnxruntime as it is installed has no {provider}")
    model = package.model.read(MAX_FILE_BYTES)
    names = [rule.name for rule in package.manifest.outputs]
    key = package.manifest.input.name

    def options() -> Any:
        made = library.SessionOptions()
        made.log_severity_level = 4
        if name is RunnerName.BARE_CUDA:
            made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if name is not RunnerName.DEFAULTS:
            made.intra_op_num_threads = job.threads
            made.enable_cpu_mem_arena = job.options().memory_arena
            made.enable_mem_pattern = False  # as ours
            made.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return made

    try:
        session = library.InferenceSession(model, sess_options=options(), providers=[provider])
    except Exception as error:  # a native library's exceptions share no base class
        raise PeerUnfitError(f"onnxruntime: {error}".splitlines()[0]) from error
    if session.get_providers()[0] != provider:
        raise PeerUnfitError(f"onnxruntime runs on {session.get_providers()[0]}, not {provider}")

    def profile(batch: Array) -> tuple[Layer, ...]:
        with tempfile.TemporaryDirectory(prefix="edge-triage-profile-") as folder:
            watched = options()
            watched.enable_profiling = True
            watched.profile_file_prefix = str(Path(folder) / "profile")
            slow = library.InferenceSession(model, sess_options=watched, providers=[provider])
            for _ in range(_PROFILED_RUNS):
                slow.run(names, {key: batch})
            return _layers_of(json.loads(Path(slow.end_profiling()).read_text("utf-8")))

    return Runner(
        software=f"{library.__version__} {provider}",
        run=lambda batch: session.run(names, {key: batch}),
        profile=None if name is RunnerName.DEFAULTS else profile,
        on_gpu=name is RunnerName.BARE_CUDA,
    )


def _layers_of(events: list[dict[str, Any]]) -> tuple[Layer, ...]:
    """Sum up ONNX Runtime's own profile: one event for each node of each run."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"].removesuffix("_kernel_time")
            times[node, event["args"]["op_name"]].append(float(event["dur"]))
    return _shares({node: median(values) for node, values in times.items()})


def _layers_of_times(times: Sequence[tuple[str, float]]) -> tuple[Layer, ...]:
    """Of one run; milliseconds by layer. What the library has fused has no operator."""
    return _shares({(name, ""): ms * 1000 for name, ms in times})


def _shares(medians_us: Mapping[tuple[str, str], float]) -> tuple[Layer, ...]:
    total = sum(medians_us.values()) or 1.0
    layers = [
        Layer(name=name, operator=operator, share=value / total, median_us=value)
        for (name, operator), value in medians_us.items()
    ]
    return tuple(sorted(layers, key=lambda layer: layer.share, reverse=True))


def _torch(package: LoadedPackage, job: Job, *, on_gpu: bool, compiles: bool) -> Runner:
    torch = importlib.import_module("torch")
    if on_gpu and not torch.cuda.is_available():
        raise PeerUnfitError("PyTorch sees no GPU")
    torch.set_num_threads(job.threads)
    place = torch.device("cuda", job.gpu) if on_gpu else torch.device("cpu")
    module = torch_module(package.model.read(MAX_FILE_BYTES)).to(place)
    forward = torch.compile(module) if compiles else module

    def run(batch: Array) -> list[NDArray[Any]]:
        with torch.inference_mode():
            outputs = forward(torch.from_numpy(batch).to(place))
        return [output.cpu().numpy() for output in outputs]

    how = "torch.compile" if compiles else "eager"
    return Runner(software=f"{torch.__version__} {how} {place.type}", run=run, on_gpu=on_gpu)
