"""Who runs a model beside our engines: each takes an array on the processor and gives one back.

All compute in FP32 without TF32, as our FP32 engines do, or in FP16 where their name says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.backends import open_engine
from engines.checksums import MAX_FILE_BYTES
from engines.contract import Backend, Engine, Precision
from engines.errors import EngineUnavailableError
from engines.loading import LoadedPackage
from tools.gpu_check.bare_loop import BareLoop, bare_loop
from tools.gpu_check.subjects import COMBINATIONS, Subject

Array: TypeAlias = NDArray[Any]
Run: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Somebody who runs the model, opened."""

    name: str
    run: Run
    """From host memory to host memory."""
    engine: Engine | None = None
    """Ours."""
    loop: BareLoop | None = None
    """The bare loop's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a peer is opened, for a package and a shape of its input.

    The context manager raises an ``EngineError`` or an ``ImportError`` where it is not here.
    """

    name: str
    open: Callable[[LoadedPackage, tuple[int, ...], ExitStack, Path], Peer]


ORT_CUDA = "ONNX Runtime CUDA, bare"


def openings() -> tuple[Opening, ...]:
    """Everybody, ours first."""
    ours = tuple(
        Opening(name=f"{backend.value} {precision.value}", open=_ours(backend, precision))
        for backend, precision in COMBINATIONS
    )
    bare = tuple(
        Opening(name=bare_name(backend, precision), open=_bare(backend, precision))
        for backend in (Backend.TENSORRT, Backend.TENSORRT_RTX)
        for precision in Precision
    )
    return (
        *ours,
        *bare,
        Opening(name=ORT_CUDA, open=_onnxruntime),
        Opening(name="PyTorch eager", open=_torch(compiles=False, halves=False)),
        Opening(name="PyTorch eager fp16", open=_torch(compiles=False, halves=True)),
        Opening(name="torch.compile", open=_torch(compiles=True, halves=False)),
        Opening(name="torch.compile fp16", open=_torch(compiles=True, halves=True)),
    )


def bare_name(backend: Backend, precision: Precision) -> str:
    """Of the loop around the same plan."""
    return f"{backend.value} {precision.value}, bare loop"


def _ours(
    backend: Backend, precision: Precision
) -> Callable[[LoadedPackage, tuple[int, ...], ExitStack, Path], Peer]:
    def opened(
        package: LoadedPackage, _shape: tuple[int, ...], stack: ExitStack, folder: Path
    ) -> Peer:
        subject = Subject(package=package, backend=backend, precision=precision)
        engine = stack.enter_context(open_engine(backend, package.model, subject.options(folder)))
        return peer_of(engine, package, f"{backend.value} {precision.value}")

    return opened


def peer_of(engine: Engine, package: LoadedPackage, name: str) -> Peer:
    """One of our engines as a peer."""
    given, wanted = package.manifest.input.name, engine.outputs[0].name
    return Peer(name=name, run=lambda array: engine.run({given: array})[wanted], engine=engine)


def _bare(
    backend: Backend, precision: Precision
) -> Callable[[LoadedPackage, tuple[int, ...], ExitStack, Path], Peer]:
    def opened(
        package: LoadedPackage, shape: tuple[int, ...], stack: ExitStack, _folder: Path
    ) -> Peer:
        loop = stack.enter_context(bare_loop(package, backend, precision, shape))

        def run(array: Array) -> Array:
            loop.fill(array)
            loop.ask()
            return loop.wait()

        return Peer(name=bare_name(backend, precision), run=run, loop=loop)

    return opened


def _onnxruntime(
    package: LoadedPackage, _shape: tuple[int, ...], _stack: ExitStack, _folder: Path
) -> Peer:
    library = _onnxruntime_itself()
    provider = "CUDAExecutionProvider"
    if provider not in library.get_available_providers():
        raise EngineUnavailableError("this ONNX Runtime is built without CUDA")
    session = library.InferenceSession(
        package.model.read(MAX_FILE_BYTES), providers=[(provider, {"use_tf32": "0"})]
    )
    if session.get_providers()[0] != provider:
        raise EngineUnavailableError("ONNX Runtime's CUDA provider does not start here")
    name = session.get_inputs()[0].name
    return Peer(name=ORT_CUDA, run=lambda array: np.asarray(session.run(None, {name: array})[0]))


def _torch(
    *, compiles: bool, halves: bool
) -> Callable[[LoadedPackage, tuple[int, ...], ExitStack, Path], Peer]:
    name = ("torch.compile" if compiles else "PyTorch eager") + (" fp16" if halves else "")

    def opened(
        package: LoadedPackage, _shape: tuple[int, ...], stack: ExitStack, _folder: Path
    ) -> Peer:
        torch = _torch_with_cuda()
        # Only here: without PyTorch the module cannot be imported.
        from tools.gpu_check.torch_model import as_torch  # noqa: PLC0415 - see above

        model = as_torch(package.model.read(MAX_FILE_BYTES)).cuda()
        model = model.half() if halves else model
        # Without a reset it gives up after some models of one shape each.
        torch.compiler.reset()
        ready = torch.compile(model, mode="reduce-overhead") if compiles else model
        stack.enter_context(torch.inference_mode())

        def run(array: Array) -> Array:
            given = torch.from_numpy(array).cuda()
            answer = ready(given.half() if halves else given)
            found: Array = answer.float().cpu().numpy()
            return found

        return Peer(name=name, run=run)

    return opened


def _torch_with_cuda() -> Any:
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise EngineUnavailableError("this PyTorch has no CUDA")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    return torch


def load_nvidia_libraries() -> None:
    """Let ONNX Runtime find CUDA and cuDNN where PyTorch's wheels have put them."""
    preload = getattr(_onnxruntime_itself(), "preload_dlls", None)
    if preload is not None:
        preload()


def _onnxruntime_itself() -> Any:
    # Our adapter first: it keeps the library from reporting home.
    importlib.import_module("engines.onnxruntime_engine")
    return importlib.import_module("onnxruntime")
