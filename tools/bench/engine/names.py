"""Who runs a model in the benchmark, and what each needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from engines.contract import Backend


class RunnerName(str, Enum):
    """Our engines, by the names of their back ends, and peers."""

    ONNXRUNTIME = "onnxruntime"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_TENSORRT = "onnxruntime-tensorrt"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    BARE = "bare-onnxruntime"
    BARE_CUDA = "bare-onnxruntime-cuda"
    DEFAULTS = "onnxruntime-defaults"
    TORCH = "pytorch"
    TORCH_COMPILED = "pytorch-compile"
    TORCH_CUDA = "pytorch-cuda"
    TORCH_CUDA_COMPILED = "pytorch-cuda-compile"

    @property
    def backend(self) -> Backend | None:
        """Return the back end of ours; None of a peer."""
        return _BACKENDS.get(self.value)

    @property
    def words(self) -> str:
        """What it is."""
        return _WORDS.get(self, "ours")


_BACKENDS = {backend.value: backend for backend in Backend}

_WORDS: Mapping[RunnerName, str] = MappingProxyType(
    {
        RunnerName.BARE: "a bare loop over session.run with our session's options and no check",
        RunnerName.BARE_CUDA: "the same on its CUDA provider",
        RunnerName.DEFAULTS: "the same with the library's own options: every core, which spin",
        RunnerName.TORCH: "the same operators in PyTorch, eager",
        RunnerName.TORCH_COMPILED: "the same through torch.compile",
        RunnerName.TORCH_CUDA: "the same operators in PyTorch on the GPU, eager, with both copies",
        RunnerName.TORCH_CUDA_COMPILED: "the same through torch.compile on the GPU",
    }
)

_MODULES: Mapping[RunnerName, str] = MappingProxyType(
    {
        name: "torch" if name.value.startswith("pytorch") else "onnxruntime"
        for name in RunnerName
        if name.backend is None
    }
)

PEERS = tuple(_MODULES)


def is_installed(name: RunnerName) -> bool:
    """Say whether what a peer needs is installed; whether it has a GPU it says itself."""
    return name.backend is not None or importlib.util.find_spec(_MODULES[name]) is not None
