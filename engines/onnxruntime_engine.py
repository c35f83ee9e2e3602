"""ONNX Runtime on the CPU: the reference that every other back end is compared with.

The only module that imports ``onnxruntime``. It registers no custom operators, reads no file but
the verified model, and offers one execution provider, so that there is nothing to fall back to.
It tells its maker nothing: its own telemetry is off before it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from engines.checksums import MAX_FILE_BYTES, VerifiedFile
from engines.contract import (
    FREE,
    Backend,
    ElementType,
    Engine,
    EngineDescription,
    EngineMetadata,
    EngineOptions,
    TensorSpec,
)
from engines.errors import EngineLoadError, EngineStateError

# From 1.29 on the official builds for Linux give each machine a persistent id and report processes
# and models to Microsoft. disable_telemetry_events() comes too late: importing sends the first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime  # type: ignore[import-untyped]  # it ships no types

PROVIDER = "CPUExecutionProvider"

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
    """Runs a model with ONNX Runtime's CPU provider."""

    def __init__(self, model: VerifiedFile, options: EngineOptions) -> None:
        super().__init__(check_values=options.check_values)
        self._model = model
        self._options = options
        self._session: onnxruntime.InferenceSession | None = None
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = _LOG_FATAL

    def _load(self) -> EngineDescription:
        onnxruntime.disable_telemetry_events()
        onnxruntime.set_default_logger_severity(_LOG_FATAL)
        session = onnxruntime.InferenceSession(
            self._model.read(MAX_FILE_BYTES),
            sess_options=_session_options(self._options),
            providers=[PROVIDER],
        )
        session.disable_fallback()
        self._session = session
        return EngineDescription(
            metadata=EngineMetadata(
                backend=Backend.ONNXRUNTIME,
                provider=PROVIDER,
                version=onnxruntime.__version__,
                model_sha256=self._model.sha256,
            ),
            inputs=tuple(_spec(node) for node in session.get_inputs()),
            outputs=tuple(_spec(node) for node in session.get_outputs()),
        )

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._session is None:
            raise EngineStateError("no session is loaded")
        names = [spec.name for spec in self.outputs]
        results = self._session.run(names, dict(inputs), self._run_options)
        return dict(zip(names, results, strict=True))

    def _free(self) -> None:
        self._session = None


def _session_options(options: EngineOptions) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _LOG_FATAL
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.memory_arena
    # Patterns are plans for reusing the arena, one for each shape that was ever seen.
    settings.enable_mem_pattern = options.memory_arena
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
