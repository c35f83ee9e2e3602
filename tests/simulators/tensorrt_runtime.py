"""A stand-in for the modules ``tensorrt`` and ``tensorrt_rtx``: the half that runs plans.

Names, signatures and answers are those of the bindings 10.3 to 11.4 and RTX: what is refused comes
back as None or False, with the reason in the logger. Addresses are read and written as the device
has them, so it runs on anything whose device memory is host memory: ``HostDevice`` and the fake
libcuda. The arithmetic is ONNX Runtime's.

Stricter than the vendor where the vendor leaves the outcome open: what its documentation calls
undefined is written to ``World.violations``, and tests demand that there are none.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
from numpy.typing import NDArray

from simulators.tensorrt_words import (
    DATA_TYPES,
    DataType,
    Dims,
    ExecutionContextAllocationStrategy,
    ILogger,
    IProfiler,
    LayerInformationFormat,
    OnnxParserFlag,
    Severity,
    TensorIOMode,
    TensorLocation,
    free_shape,
    nptype,
)

if TYPE_CHECKING:  # the other half builds on this one
    from simulators.tensorrt_building import IBuilderConfig

MAGIC = b"a plan of the simulated TensorRT\n"
SCRATCH_BYTES = 4096
"""What a context needs for each item of its largest batch."""


class Launcher(Protocol):
    """How the module adds its work to a stream that it knows only by its CUstream."""

    def is_capturing(self, stream: int) -> bool:
        """Whether the stream takes down instead of doing."""
        ...

    def launch(self, stream: int, work: Callable[[], None]) -> bool:
        """Ask the stream for it; False when it is refused."""
        ...


@dataclass
class Faults:
    """What shall go wrong; numbers count down."""

    no_engine: int = 0
    """So many times deserialising gives None."""
    no_engine_reason: str = "Error Code 1: Serialization (Version tag does not match)"
    no_context: int = 0
    """So many times there is no context."""
    contexts_before: int = 0
    """But first so many are made."""
    no_capture: bool = False
    """Enqueueing into a capture is refused."""
    says_not_capturable: bool = False
    enqueues_before_failure: int | None = None
    """So many enqueues work; every later one answers False."""
    no_plan: tuple[str, ...] = ()
    """Why nothing is built, as the logger says it: a reason, and what follows from it."""
    build_raises: BaseException | None = None
    """The binding itself does, instead of building."""
    no_builder: bool = False
    no_runtime: bool = False
    """As on a machine whose GPU does not answer."""
    no_network: bool = False
    """There are no strong types."""
    no_profile: bool = False
    """None is taken."""
    dla_cores: int = 0
    dla_takes: frozenset[str] = frozenset({"Conv", "Gemm", "Relu"})
    """Operators of ONNX."""
    sizes_on_host: bool = False
    """Tensors are wanted on the processor."""
    broken_plan: bool = False
    """What is built can never be read."""
    has_cache: bool = True
    """There is one for compiled kernels, where kernels are compiled."""
    takes_cache: bool = True
    """Contexts do."""
    no_kernels_taken: int = 0
    """So many times those that were kept are refused."""
    raising: str = ""
    """Which method of the cache raises, or of what makes it."""


@dataclass
class Model:
    """An ONNX model, and the shapes that its outputs were found to have."""

    content: bytes
    session: onnxruntime.InferenceSession
    shapes: dict[tuple[tuple[int, ...], ...], dict[str, tuple[int, ...]]] = field(
        default_factory=dict
    )

    @cached_property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """Name and operator of each; a layer is a node, named as the vendor's parser names it."""
        nodes = onnx.load_model_from_string(self.content).graph.node
        return tuple((node.name or f"node_of_{node.output[0]}", node.op_type) for node in nodes)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = [node.name for node in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))

    def output_shapes(self, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        nodes = self.session.get_inputs()
        key = tuple(inputs[node.name] for node in nodes)
        if key not in self.shapes:
            zeros = {
                node.name: np.zeros(inputs[node.name], nptype(DATA_TYPES[node.type]))
                for node in nodes
            }
            self.shapes[key] = {name: each.shape for name, each in self.run(zeros).items()}
        return self.shapes[key]


def read_model(content: bytes) -> Model:
    """Load an ONNX model; raises whatever ONNX Runtime raises."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    session.disable_fallback()
    return Model(content, session)


class World:
    """All that the objects of one module share, and what tests ask."""

    def __init__(self, launcher: Launcher, faults: Faults, version: str) -> None:
        self.launcher = launcher
        self.faults = faults
        self.version = version
        self.operations: list[str] = []
        """What contexts were asked (enqueue, capture), and when it was done (run)."""
        self.violations: list[str] = []
        self.alive: Counter[str] = Counter()
        self.models: dict[str, Model] = {}
        self.builds = 0
        self.loads = 0
        self.compiled = 0
        """Kernels, where they are compiled when they run."""
        self.configs: list[IBuilderConfig] = []
        """Of every build, as it was asked for."""
        self.network_flags: list[int] = []
        self.parser_flags: set[OnnxParserFlag] = set()

    def born(self, thing: object, kind: str) -> None:
        self.alive[kind] += 1
        weakref.finalize(thing, self._gone, kind)

    def _gone(self, kind: str) -> None:
        self.alive[kind] -= 1

    def model(self, content: bytes) -> Model:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self.models:
            self.models[digest] = read_model(content)
        return self.models[digest]


class Runtime:
    world: World
    engine_type: type[CudaEngine]
    context_type: type[ExecutionContext]
    DLA_core = -1

    def __init__(self, logger: ILogger) -> None:
        if self.world.faults.no_runtime:
            refuse_without_gpu(logger)
        self.logger = logger
        self.world.born(self, "runtime")

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
        faults = self.world.faults
        self.world.loads += 1
        if faults.no_engine:
            faults.no_engine -= 1
            self.logger.log(Severity.ERROR, faults.no_engine_reason)
            return None
        header, model = opened_plan(bytes(serialized_engine))
        is_ours = header is not None and header["version"] == self.world.version
        if header is None or not is_ours or header["dla_core"] != self.DLA_core:
            self.logger.log(Severity.ERROR, "Error Code 1: Serialization (magicTag assertion)")
            return None
        return self.engine_type(self, header, self.world.model(model))


def refuse_without_gpu(logger: ILogger) -> NoReturn:
    """What a runtime and a builder do."""
    logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
    raise TypeError("pybind11::init(): factory function returned nullptr")


def sealed_plan(header: Mapping[str, Any], model: bytes) -> bytes:
    """Return a plan."""
    body = json.dumps(header).encode() + b"\n" + model
    return MAGIC + hashlib.sha256(body).digest() + body


def opened_plan(plan: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """Return header and model; None when it is no plan."""
    start = len(MAGIC) + 32
    body = plan[start:]
    if not plan.startswith(MAGIC) or hashlib.sha256(body).digest() != plan[start - 32 : start]:
        return None, b""
    header, model = body.split(b"\n", 1)
    loaded: dict[str, Any] = json.loads(header)
    return loaded, model


class EngineInspector:
    def __init__(self, engine: CudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, form: LayerInformationFormat) -> str:
        assert form is LayerInformationFormat.JSON
        layers = [
            {"Name": name, "LayerType": kind, "Outputs": []}
            for name, kind in self._engine.model.layers
        ]
        return json.dumps({"Layers": layers, "Bindings": self._engine.names})


class CudaEngine:
    num_io_tensors = 0
    num_optimization_profiles = 1

    def __init__(self, runtime: Runtime, header: Mapping[str, Any], model: Model) -> None:
        self.runtime = runtime
        self.world = runtime.world
        self.model = model
        inputs, outputs = model.session.get_inputs(), model.session.get_outputs()
        self._nodes = {
            **{node.name: (node, TensorIOMode.INPUT) for node in inputs},
            **{node.name: (node, TensorIOMode.OUTPUT) for node in outputs},
        }
        self.names: list[str] = list(self._nodes)
        self.profiles: list[dict[str, list[list[int]]]] = header["profiles"]
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = max(len(self.profiles), 1)
        self.world.born(self, "engine")

    @property
    def num_layers(self) -> int:
        return len(self.model.layers)

    @property
    def device_memory_size_v2(self) -> int:
        most = [shapes[2][0] for profile in self.profiles for shapes in profile.values()]
        return SCRATCH_BYTES * max(most, default=1)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._nodes[name][1]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DATA_TYPES[self._nodes[name][0].type]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(free_shape(self._nodes[name][0]))

    def get_tensor_location(self, name: str) -> TensorLocation:
        assert name in self._nodes
        is_on_host = self.world.faults.sizes_on_host
        return TensorLocation.HOST if is_on_host else TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        if not self.profiles:
            return [self.get_tensor_shape(name)] * 3
        return [Dims(each) for each in self.profiles[profile_index][name]]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
    ) -> ExecutionContext | None:
        faults = self.world.faults
        if faults.no_context and faults.contexts_before:
            faults.contexts_before -= 1
        elif faults.no_context:
            faults.no_context -= 1
            self.runtime.logger.log(
                Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 4096 bytes.)"
            )
            return None
        return self.runtime.context_type(self, strategy)


class ExecutionContext:
    profiler: IProfiler | None = None

    def __init__(self, engine: CudaEngine, strategy: ExecutionContextAllocationStrategy) -> None:
        self.engine = engine
        self.world = engine.world
        self.active_optimization_profile = 0
        fixed = {name: tuple(engine.get_tensor_shape(name)) for name in self._names()}
        self._inputs = {name: shape for name, shape in fixed.items() if -1 not in shape}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._is_managed = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self._is_settled = False
        """Enqueued since the last change: only then can it be captured."""
        self.generation = 0
        self.world.born(self, "context")

    def _names(self) -> list[str]:
        engine = self.engine
        return [name for name in engine.names if engine.get_tensor_mode(name) is TensorIOMode.INPUT]

    def _change(self) -> None:
        self._is_settled = False
        self.generation += 1

    def _refuse(self, text: str) -> bool:
        told = f"Error Code 3: API Usage Error ({text})"
        self.engine.runtime.logger.log(Severity.ERROR, told)
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not stream_handle or not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self._refuse("profile index out of range")
        self.active_optimization_profile = profile_index
        self._inputs = {}
        self._change()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        engine = self.engine
        least, _, most = engine.get_tensor_profile_shape(name, self.active_optimization_profile)
        fits = len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )
        if not fits:
            return self._refuse(f"{name}: shape {shape} is outside the profile")
        if self._inputs.get(name) != shape:
            self._inputs[name] = shape
            self._change()
        return True

    def infer_shapes(self) -> list[str]:
        missing = [name for name in self._names() if name not in self._inputs]
        if not missing:
            self._outputs()
        return missing

    def _outputs(self) -> dict[str, tuple[int, ...]]:
        try:
            return self.engine.model.output_shapes(self._inputs)
        except Exception as error:
            raise RuntimeError(f"shape inference failed: {error}") from error

    def get_tensor_shape(self, name: str) -> Dims:
        if self.engine.get_tensor_mode(name) is TensorIOMode.INPUT:
            return Dims(self._inputs.get(name, tuple(self.engine.get_tensor_shape(name))))
        return Dims(self._outputs()[name])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine.names:
            return self._refuse(f"no tensor {name}")
        if self._addresses.get(name) != int(memory):
            self._addresses[name] = int(memory)
            self.generation += 1
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if not self._is_managed or size < self.engine.device_memory_size_v2:
            raise RuntimeError("Error Code 3: API Usage Error (device memory is too small)")
        self._scratch = (int(memory), size)
        self._change()

    def execute_async_v3(self, stream_handle: int) -> bool:
        world, faults = self.world, self.world.faults
        if set(self._addresses) != set(self.engine.names) or self.infer_shapes():
            return self._refuse("an address or a shape is not set")
        if self._is_managed and not self._scratch[0]:
            return self._refuse("device memory is not set")
        is_captured = world.launcher.is_capturing(stream_handle)
        if is_captured and (faults.no_capture or not self._is_settled):
            return self._refuse("operation not permitted when stream is capturing")
        if faults.enqueues_before_failure == 0:
            return self._refuse("Cuda Runtime (an illegal memory access was encountered)")
        if faults.enqueues_before_failure is not None:
            faults.enqueues_before_failure -= 1
        world.operations.append("capture" if is_captured else "enqueue")
        self._is_settled = True
        if not world.launcher.launch(stream_handle, self._work(is_captured=is_captured)):
            return self._refuse("Cuda Runtime (launch failed)")
        if self.profiler is not None and not is_captured:
            for name, _ in self.engine.model.layers:
                self.profiler.report_layer_time(name, 0.25)
        return True

    def _work(self, *, is_captured: bool) -> Callable[[], None]:
        """What the stream will do, with the shapes and addresses of now."""
        model, world = self.engine.model, self.world
        types = {name: nptype(self.engine.get_tensor_dtype(name)) for name in self._inputs}
        generation, addresses, inputs = self.generation, dict(self._addresses), dict(self._inputs)
        outputs, scratch = self._outputs(), self._scratch
        context = weakref.ref(self)

        def work() -> None:
            living = context()
            if is_captured and (living is None or living.generation != generation):
                world.violations.append("a graph ran whose context is gone or has changed")
            if scratch[0]:
                ctypes.memset(scratch[0], 0xAB, scratch[1])
            given = {
                name: array_at(addresses[name], shape, types[name]).copy()
                for name, shape in inputs.items()
            }
            for name, values in model.run(given).items():
                array_at(addresses[name], outputs[name], values.dtype)[...] = values
            world.operations.append("run")

        return work


class CapturableContext(ExecutionContext):
    """As RTX has it: says whether it can be captured."""

    def is_stream_capturable(self, stream: int) -> bool:
        return bool(stream) and not self.world.faults.says_not_capturable


def array_at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return what lies at an address, not a copy of it."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_char * nbytes).from_address(address)
    return np.frombuffer(memory, dtype=dtype).reshape(shape)
