"""ONNX Runtime: on the CPU the reference that every other back end is compared with.

The only module that imports ``onnxruntime``. It registers no custom operators, reads no file but
the verified model, and asks for one execution provider. Left to itself the library puts what that
provider does not take on the CPU, prints a line, and goes on: here a provider that does not start,
or does not take the whole model, is an error. Nothing is kept on disk: a plan of the TensorRT
provider would be read back unsealed.

It tells its maker nothing: its own telemetry is off before it is loaded.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from engines.checksums import MAX_FILE_BYTES, VerifiedFile
from engines.contract import (
    FREE,
    AcceleratorOptions,
    Backend,
    ElementType,
    Engine,
    EngineDescription,
    EngineMetadata,
    EngineOptions,
    Precision,
    TensorSpec,
)
from engines.device.driver import find_driver
from engines.errors import (
    DeviceUnavailableError,
    EngineLoadError,
    EngineStateError,
    EngineUnavailableError,
)

# From 1.29 on the official builds for Linux give each machine a persistent id and report processes
# and models to Microsoft. disable_telemetry_events() comes too late: importing sends the first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime  # type: ignore[import-untyped]  # it ships no types

PROVIDERS: Mapping[Backend, str] = MappingProxyType(
    {
        Backend.ONNXRUNTIME: "CPUExecutionProvider",
        Backend.ONNXRUNTIME_CUDA: "CUDAExecutionProvider",
        Backend.ONNXRUNTIME_TENSORRT: "TensorrtExecutionProvider",
    }
)
"""The part of the library that computes."""

_PROVIDER_FILES: Mapping[Backend, str] = MappingProxyType(
    {
        Backend.ONNXRUNTIME_CUDA: "libonnxruntime_providers_cuda.so",
        Backend.ONNXRUNTIME_TENSORRT: "libonnxruntime_providers_tensorrt.so",
    }
)

# Every error is raised as well, so that only what ends the process is worth a line of its log.
_LOG_FATAL = 4

# Tensors outside model.onnx would be read from this folder, and nothing can lie below a device.
_NO_FOLDER = "/dev/null"

_ELEMENT_TYPES = {
    "tensor(float16)": ElementType.FLOAT16,
    "tensor(float)": ElementType.FLOAT32,
    "tensor(int32)": ElementType.INT32,
    "tensor(int64)": ElementType.INT64,
    "tensor(uint8)": ElementType.UINT8,
}


class OnnxRuntimeEngine(Engine):
    """Runs a model with one of ONNX Runtime's providers.

    Raises:
        EngineUnavailableError: The installed library has no such provider, or there is no GPU for
            it; or the options ask for what it has not.
    """

    def __init__(
        self, model: VerifiedFile, options: EngineOptions, backend: Backend = Backend.ONNXRUNTIME
    ) -> None:
        super().__init__(check_values=options.check_values)
        if backend is not Backend.ONNXRUNTIME:
            _require_accelerator(backend, options.accelerator)
        self._model = model
        self._options = options
        self._backend = backend
        self._session: onnxruntime.InferenceSession | None = None
        self._output_names: list[str] = []
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = _LOG_FATAL

    def _load(self) -> EngineDescription:
        onnxruntime.disable_telemetry_events()
        onnxruntime.set_default_logger_severity(_LOG_FATAL)
        session = self._open_session(self._model.read(MAX_FILE_BYTES))
        provider = PROVIDERS[self._backend]
        if session.get_providers()[0] != provider:
            raise EngineUnavailableError(
                f"ONNX Runtime runs the model on {session.get_providers()[0]}, not on {provider}; "
                "choose another engine, or mend its installation (docs/engines.md)"
            )
        self._session = session
        outputs = tuple(_spec(node) for node in session.get_outputs())
        self._output_names = [spec.name for spec in outputs]
        return EngineDescription(
            metadata=EngineMetadata(
                backend=self._backend,
                provider=provider,
                version=onnxruntime.__version__,
                model_sha256=self._model.sha256,
            ),
            inputs=tuple(_spec(node) for node in session.get_inputs()),
            outputs=outputs,
        )

    def _open_session(self, model: bytes) -> onnxruntime.InferenceSession:
        settings = _session_options(self._options)
        provider = PROVIDERS[self._backend]
        if self._backend is Backend.ONNXRUNTIME:
            return onnxruntime.InferenceSession(
                model, sess_options=settings, providers=[provider], enable_fallback=0
            )
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        chosen = (provider, _provider_options(self._backend, self._options.accelerator))
        try:
            return onnxruntime.InferenceSession(
                _in_precision(model, self._options.accelerator),
                sess_options=settings,
                providers=[chosen],
                enable_fallback=0,
            )
        # A native library's exceptions share no base class.
        except Exception as error:
            missing = _missing_library(self._backend)
            if missing is None:
                raise
            raise EngineUnavailableError(
                f"{provider} of onnxruntime {onnxruntime.__version__} does not load on this "
                f"machine ({missing}); install the CUDA, cuDNN and TensorRT libraries that it was "
                "built for (docs/engines.md)"
            ) from error

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._session is None:
            raise EngineStateError("no session is loaded")
        results = self._session.run(self._output_names, dict(inputs), self._run_options)
        return dict(zip(self._output_names, results, strict=True))

    def _free(self) -> None:
        self._session = None


def _require_accelerator(backend: Backend, accelerator: AcceleratorOptions | None) -> None:
    """Finds out what is missing while nothing is loaded, and nothing can be printed or crash."""
    if PROVIDERS[backend] not in onnxruntime.get_available_providers():
        raise EngineUnavailableError(
            f"onnxruntime {onnxruntime.__version__} as it is installed has no "
            f"{PROVIDERS[backend]}; install onnxruntime-gpu in its place, not beside it "
            "(docs/engines.md)"
        )
    if accelerator is not None and accelerator.dla_core is not None:
        raise EngineUnavailableError(
            f"the back end {backend.value!r} does not run on a deep learning accelerator; choose "
            f"{Backend.TENSORRT.value!r}, or leave out the DLA core"
        )
    try:
        # A library that was built with CUDA 13.1 runs on every driver of CUDA 13.
        find_driver(least_version=int(onnxruntime.cuda_version.split(".")[0]) * 1000)
    except DeviceUnavailableError as error:
        raise EngineUnavailableError(
            f"the back end {backend.value!r} has no GPU to run on: {error}"
        ) from error


def _provider_options(backend: Backend, accelerator: AcceleratorOptions | None) -> dict[str, str]:
    """Nothing is kept on disk, and FP32 is not TF32 where that can be said."""
    if accelerator is None:
        return {"use_tf32": "0"} if backend is Backend.ONNXRUNTIME_CUDA else {}
    options = {"device_id": str(accelerator.device_index)}
    if backend is Backend.ONNXRUNTIME_CUDA:
        return options | {
            "gpu_mem_limit": str(accelerator.memory_bytes),
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "0",
        }
    return options | {
        "trt_max_workspace_size": str(accelerator.memory_bytes),
        "trt_engine_cache_enable": "0",
        "trt_timing_cache_enable": "0",
    }


def _in_precision(model: bytes, accelerator: AcceleratorOptions | None) -> bytes:
    if accelerator is None or accelerator.precision is Precision.FP32:
        return model
    # Takes the onnx library, which a worker need not hold otherwise.
    from engines.tensorrt.precision import with_precision  # noqa: PLC0415 - see above

    return with_precision(model, accelerator.precision)


def _missing_library(backend: Backend) -> str | None:
    """Says which library a provider lacks; its own error names none.

    Only after a session failed: the library must have been the first to try, because a provider
    that loads before its host crashes the process when it is used.
    """
    try:
        ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / _PROVIDER_FILES[backend]))
    except OSError as error:
        return str(error)
    return None


def _session_options(options: EngineOptions) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _LOG_FATAL
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.memory_arena
    # Patterns are plans for reusing the arena, one for each shape that was ever seen: they take
    # half as much memory again, and no time off.
    settings.enable_mem_pattern = False
    spinning = "1" if options.spinning else "0"
    settings.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    settings.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    settings.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    return settings


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    if node.type not in _ELEMENT_TYPES:
        raise EngineLoadError(
            f"tensor {node.name!r} is {node.type}; models for this device use "
            f"{', '.join(_ELEMENT_TYPES)}"
        )
    # ONNX Runtime gives a free dimension its name, or None.
    shape = tuple(size if isinstance(size, int) and size > 0 else FREE for size in node.shape)
    return TensorSpec(name=node.name, element_type=_ELEMENT_TYPES[node.type], shape=shape)
