"""Small types of the stand-in for ``tensorrt`` and ``tensorrt_rtx``; see ``tensorrt_runtime``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, IntEnum
from typing import Any, ClassVar

import numpy as np


class Dims:
    """A shape as the bindings give it: a sequence, and no tuple."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = tuple(sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sizes)

    def __getitem__(self, index: int) -> int:
        return self._sizes[index]


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


DATA_TYPES = {
    "tensor(float16)": DataType.HALF,
    "tensor(float)": DataType.FLOAT,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(uint8)": DataType.UINT8,
    "tensor(bool)": DataType.BOOL,
}
"""By ONNX Runtime's names."""

_NUMPY_TYPES: dict[DataType, type[np.generic]] = {
    DataType.HALF: np.float16,
    DataType.FLOAT: np.float32,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.UINT8: np.uint8,
    DataType.BOOL: np.bool_,
}


def nptype(trt_type: DataType) -> type[np.generic]:
    """Return the NumPy type, as the bindings do."""
    return _NUMPY_TYPES[trt_type]


def free_shape(node: Any) -> tuple[int, ...]:
    """Return the shape of one of ONNX Runtime's tensors, free dimensions as -1."""
    return tuple(size if isinstance(size, int) and size > 0 else -1 for size in node.shape)


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(Enum):
    DEVICE = 0
    HOST = 1


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class LayerInformationFormat(Enum):
    ONELINE = 0
    JSON = 1


class BuilderFlag(Enum):
    GPU_FALLBACK = 3
    TF32 = 7


class NetworkDefinitionCreationFlag(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class MemoryPoolType(Enum):
    WORKSPACE = 0


class ProfilingVerbosity(Enum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 1


class DeviceType(Enum):
    GPU = 0
    DLA = 1


class OnnxParserFlag(Enum):
    NATIVE_INSTANCENORM = 0
    ADJUST_FOR_DLA = 1


class ComputeCapability(Enum):
    CURRENT = 1
    SM86 = 86


class ErrorCode(Enum):
    MEM_ALLOC_FAILED = 2
    MODEL_DESERIALIZE_FAILED = 3


class Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    """Subclassed by whoever wants to listen."""

    Severity: ClassVar = Severity

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProfiler:
    """Subclassed by whoever wants to know how long layers take."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class IProgressMonitor:
    """Subclassed by whoever wants to watch or to stop a build."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    """Read with ``bytes(memory)``, as the bindings' buffer is."""

    @property
    def nbytes(self) -> int:
        return len(self)
