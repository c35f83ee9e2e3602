"""What every inference engine promises, whichever library does the work.

* Nothing is loaded before ``with``; everything is freed after it; use outside is an error.
* Inputs are checked before every run (names, types, shapes, values), so that a back end never
  sees a tensor that it would read wrongly.
* Outputs belong to the caller: no later run changes them.
* Whatever a back end raises arrives as an ``EngineError``.

An engine is used by one thread at a time. A back end is a subclass with three private methods that
each do one thing; ``tests/unit/engines/test_contract.py`` holds every back end to the list above.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import (
    EngineLoadError,
    EngineMemoryError,
    EngineMisuseError,
    EngineOutputError,
    EngineRunError,
    EngineStateError,
    ModelEngineError,
    TensorMismatchError,
)

FREE = -1
"""A dimension that each run may choose, at least 1."""

MAX_THREADS = 64

_FLOAT32 = np.dtype(np.float32)


class Backend(str, Enum):
    """The libraries that can run a model. A new one gets its name here and its case in backends."""

    ONNXRUNTIME = "onnxruntime"
    """On the processor: the reference."""
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_TENSORRT = "onnxruntime-tensorrt"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class Precision(str, Enum):
    """In which numbers an engine computes. A model with Q/DQ nodes has INT8 in either."""

    FP32 = "fp32"
    FP16 = "fp16"


class CudaLibrary(str, Enum):
    """What talks to the CUDA driver; both do the same."""

    PYCUDA = "pycuda"
    CUDA_BINDINGS = "cuda-bindings"


class ElementType(str, Enum):
    """Element types that models may use at their boundary, named as in NumPy."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type, in the machine's byte order."""
        return np.dtype(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, type and shape of one tensor; ``FREE`` dimensions are chosen by each run."""

    name: str
    element_type: ElementType
    shape: tuple[int, ...]
    _dtype: np.dtype[Any] = field(init=False, repr=False, compare=False)
    """Kept: asked for before and after every run."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_dtype", self.element_type.dtype)

    def mismatch(self, array: NDArray[Any]) -> str | None:
        """Says how ``array`` differs from this spec, or None when it fits."""
        if array.dtype != self._dtype:
            return f"tensor {self.name!r} has type {array.dtype}, not {self.element_type.value}"
        fits = len(array.shape) == len(self.shape)
        # A loop, not all(): this runs before and after every run of a model of a millisecond.
        for size, wanted in zip(array.shape, self.shape, strict=False):
            fits = fits and size >= 1 and wanted in (FREE, size)
        if not fits:
            return f"tensor {self.name!r} has shape {array.shape}, not {self.shape} (-1: any)"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorOptions:
    """How an engine may use a GPU.

    Attributes:
        folder: Where plans, timing caches and the key that seals them lie; of this device alone.
        precision: In which numbers the engine computes.
        libraries: What talks to the driver, in order of preference.
        device_index: Which GPU, as the driver counts.
        dla_core: Which deep learning accelerator; None for the GPU itself.
        most_items: Of one batch, of a model whose batch is free.
        memory_bytes: That building, and then running, may take; less where less is free.
        may_build: Whether an engine that is not there is built; else it is an error.
        on_build: Told of the phase, the steps of it that are done, and how many there are, while an
            engine is built here (which takes minutes) or waited for (one step of none) because
            another process builds it; False stops it.
        processes_ended: How many in a row did, without a word, while they opened this very engine.
    """

    folder: Path
    precision: Precision = Precision.FP32
    libraries: tuple[CudaLibrary, ...] = (CudaLibrary.PYCUDA, CudaLibrary.CUDA_BINDINGS)
    device_index: int = 0
    dla_core: int | None = None
    most_items: int = 32
    memory_bytes: int = 1 << 30
    may_build: bool = True
    on_build: Callable[[str, int, int], bool] | None = field(
        default=None, repr=False, compare=False
    )
    processes_ended: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine may use the machine.

    Attributes:
        intra_op_threads: Threads that share one operator, 1 to 64.
        spinning: Whether idle threads burn a core to start faster. Off: the node needs the cores.
        memory_arena: Whether freed tensors stay reserved for the next run. Off: memory falls back
            after a large batch, which then takes up to a third longer; its peak is the same.
        check_values: Whether NaN and infinity are refused in inputs and outputs.
        accelerator: How a GPU may be used; None where there is none to use.
    """

    intra_op_threads: int = 1
    spinning: bool = False
    memory_arena: bool = True
    check_values: bool = True
    accelerator: AcceleratorOptions | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.intra_op_threads <= MAX_THREADS:
            raise ValueError(
                f"intra_op_threads is {self.intra_op_threads}; choose 1 to {MAX_THREADS}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMetadata:
    """Which software runs which model: what an SR and the audit name."""

    backend: Backend
    provider: str
    """The part of the library that computes, such as CPUExecutionProvider."""
    version: str
    """The library's version."""
    model_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """What a back end knows once it has loaded a model."""

    metadata: EngineMetadata
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    most_items: int | None = None
    """Of one batch, where its size is free; None: as many as memory allows."""


class _Running:
    """Turns what a back end raises while it runs into our errors.

    A class, not a generator: that one costs 15 µs of a model's millisecond, coming cold.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # As in Engine.__enter__: a native library's exceptions share no base class.
        if isinstance(error, Exception) and not isinstance(
            error, (EngineMemoryError, EngineMisuseError)
        ):
            raise EngineRunError(
                f"the back end failed while running the model ({type(error).__name__}: {error}); "
                "run `edge-triage doctor`"
            ) from error


_RUNNING = _Running()


class Engine(ABC):
    """One model, loaded by one back end, between ``__enter__`` and ``__exit__``."""

    def __init__(self, *, check_values: bool) -> None:
        self._check_values = check_values
        self._description: EngineDescription | None = None
        self._used = False

    def __enter__(self) -> Engine:
        if self._used:
            raise EngineStateError("an engine is entered once; open a new one")
        self._used = True
        try:
            self._description = self._load()
        except ModelEngineError:
            self._free()
            raise
        # A native library's exceptions share no base class; all mean that it refused.
        except Exception as error:
            self._free()
            raise EngineLoadError(
                f"the back end refused the model ({type(error).__name__}: {error}); "
                "run `edge-triage models verify` on its package"
            ) from error
        except BaseException:  # Ctrl-C while an engine is built
            self._free()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._description = None
        self._free()

    @property
    def metadata(self) -> EngineMetadata:
        """Back end, provider, version and model digest."""
        return self._loaded().metadata

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that ``run`` takes."""
        return self._loaded().inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that ``run`` returns."""
        return self._loaded().outputs

    @property
    def most_items(self) -> int | None:
        """How many items one batch may have, where its size is free; None: any number."""
        return self._loaded().most_items

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the model once.

        Args:
            inputs: One array for each of ``self.inputs``, of its type and shape. They are read
                only, and not kept.

        Returns:
            One array for each of ``self.outputs``. They belong to the caller.

        Raises:
            EngineStateError: Outside ``with``.
            TensorMismatchError: The inputs are not what the model takes.
            EngineRunError: The back end failed.
            EngineMemoryError: Memory was too little.
            EngineOutputError: The back end's answer is not what the model promises.
        """
        self._check_inputs(inputs, self._loaded().inputs)
        with self._running():
            results = self._infer(inputs)
        return self._promised(results)

    def stream(
        self, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Runs the model over many inputs; copies overlap with computing where the back end can.

        Args:
            batches: As for ``run``; the next one is asked for before the last one is done.

        Yields:
            The outputs of each, in order.

        Raises:
            ModelEngineError: As for ``run``; what came before has been yielded.
        """
        for inputs in batches:
            yield self.run(inputs)

    def _running(self) -> _Running:
        """What the back end raises while it runs becomes ours."""
        return _RUNNING

    def _promised(self, results: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs that are what the model promises, and the caller's own."""
        self._check_outputs(results, self._loaded().outputs)
        # A view may rest on memory that the back end uses again: such an array is copied.
        return {
            name: array if array.flags.owndata and array.flags.writeable else array.copy()
            for name, array in results.items()
        }

    def _loaded(self) -> EngineDescription:
        if self._description is None:
            raise EngineStateError("an engine works only inside its `with` block")
        return self._description

    def _check_inputs(
        self, inputs: Mapping[str, NDArray[Any]], specs: tuple[TensorSpec, ...]
    ) -> None:
        if inputs.keys() != {spec.name for spec in specs}:
            wanted = sorted(spec.name for spec in specs)
            raise TensorMismatchError(f"inputs are {sorted(inputs)}; the model takes {wanted}")
        if fault := self._fault(inputs, specs):
            raise TensorMismatchError(fault)

    def _check_outputs(
        self, outputs: Mapping[str, NDArray[Any]], specs: tuple[TensorSpec, ...]
    ) -> None:
        if outputs.keys() != {spec.name for spec in specs}:
            wanted = sorted(spec.name for spec in specs)
            raise EngineOutputError(f"outputs are {sorted(outputs)}; the model promises {wanted}")
        if fault := self._fault(outputs, specs):
            raise EngineOutputError(fault)

    def _fault(
        self, tensors: Mapping[str, NDArray[Any]], specs: tuple[TensorSpec, ...]
    ) -> str | None:
        for spec in specs:
            mismatch = spec.mismatch(tensors[spec.name])
            if mismatch is not None:
                return mismatch
            if self._check_values and not all_finite(tensors[spec.name]):
                return f"tensor {spec.name!r} holds NaN or infinity"
        return None

    @abstractmethod
    def _load(self) -> EngineDescription:
        """Reads the model and makes it ready to run."""

    @abstractmethod
    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the model on checked inputs."""

    @abstractmethod
    def _free(self) -> None:
        """Gives back everything that ``_load`` took; also called after a ``_load`` that failed."""


def all_finite(array: NDArray[Any]) -> bool:
    """Says whether a non-empty array holds neither NaN nor infinity, without a temporary array."""
    if array.dtype.kind != "f":
        return True
    # Squares cannot cancel out, and BLAS adds them up 2.5 times as fast as min and max are found.
    # A sum that is not finite may also be the overflow of sound numbers: then look.
    if array.dtype == _FLOAT32 and array.flags.c_contiguous:
        flat = array.reshape(-1)
        if math.isfinite(np.dot(flat, flat)):
            return True
    with np.errstate(all="ignore"):
        # min and max carry NaN, and one of them is infinite when any element is.
        return bool(np.isfinite(array.min()) and np.isfinite(array.max()))
