"""Every name of TensorRT that we use, and nothing else of it.

The vendor's modules have no types, and names come and go between versions. All code here and beside
it speaks to them through these protocols, so that mypy proves that nothing else is used, and
``used_names`` is read from them, so that the table of the bindings' names
(``tests/golden/tensorrt_names.json``) proves that every version has what we need. Names that only
some versions have stand behind a ``Feature``; versions are never compared, for RTX counts anew.

Values of enums move between versions: they are never written here nor kept anywhere.
"""

# ruff: noqa: D102 - what its methods do, the vendor says

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

Member: TypeAlias = Any
"""Of one of the vendor's enums."""


class Feature(str, Enum):
    """What only some versions have."""

    STRONGLY_TYPED_FLAG = "strongly_typed_flag"
    """Networks are strongly typed when asked to be; without the flag they always are."""
    TIMING_CACHE = "timing_cache"
    """Measurements of one build are of use to the next. RTX has the names, but they do nothing."""
    RUNTIME_CACHE = "runtime_cache"
    """Kernels are compiled when an engine runs, and can be kept."""
    EAGER_KERNELS = "eager_kernels"
    """They can be compiled before a shape runs first, and not in the background meanwhile."""
    TARGETS = "targets"
    """A build can be for other GPUs than the one that is here, or for none that is."""
    ADJUST_FOR_DLA = "adjust_for_dla"
    """The parser can change layers so that a DLA takes them."""
    STREAM_CAPTURABLE = "stream_capturable"
    """A context says whether its work can become a CUDA graph."""


class Logger(Protocol):
    """``ILogger``, which we subclass."""

    def log(self, severity: Member, message: str) -> None: ...


class Severities(Protocol):
    """``ILogger.Severity``."""

    INTERNAL_ERROR: Member
    ERROR: Member


class ProgressMonitor(Protocol):
    """``IProgressMonitor``, which we subclass."""

    def phase_start(self, phase: str, parent: str | None, steps: int) -> None: ...
    def step_complete(self, phase: str, step: int) -> bool: ...
    def phase_finish(self, phase: str) -> None: ...


class Tensor(Protocol):
    """``ITensor``."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int]: ...


class Layer(Protocol):
    """``ILayer``."""

    @property
    def name(self) -> str: ...


class Network(Protocol):
    """``INetworkDefinition``."""

    @property
    def num_inputs(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    def get_input(self, index: int, /) -> Tensor: ...
    def get_layer(self, index: int, /) -> Layer: ...


class ParserError(Protocol):
    """``ParserError``."""

    def code(self) -> Member: ...
    def desc(self) -> str: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class Parser(Protocol):
    """``OnnxParser``."""

    @property
    def num_errors(self) -> int: ...
    def get_error(self, index: int, /) -> ParserError: ...
    def parse(self, model: bytes, /) -> bool: ...
    def set_flag(self, flag: Member, /) -> None: ...


class OptimizationProfile(Protocol):
    """``IOptimizationProfile``."""

    def set_shape(
        self, name: str, least: Sequence[int], best: Sequence[int], most: Sequence[int], /
    ) -> None: ...


class HostMemory(Protocol):
    """``IHostMemory``: ``bytes`` of it is what it holds."""

    @property
    def nbytes(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...


class TimingCache(Protocol):
    """``ITimingCache``."""

    def serialize(self) -> HostMemory: ...


class BuilderConfig(Protocol):
    """``IBuilderConfig``."""

    builder_optimization_level: int
    default_device_type: Member
    DLA_core: int
    profiling_verbosity: Member
    progress_monitor: ProgressMonitor | None
    num_compute_capabilities: int

    def add_optimization_profile(self, profile: OptimizationProfile, /) -> int: ...
    def can_run_on_DLA(self, layer: Layer, /) -> bool: ...  # noqa: N802 - the vendor's name
    def clear_flag(self, flag: Member, /) -> None: ...
    def set_flag(self, flag: Member, /) -> None: ...
    def set_memory_pool_limit(self, pool: Member, size: int, /) -> None: ...
    def create_timing_cache(self, blob: bytes, /) -> TimingCache | None: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool, /) -> bool: ...  # noqa: FBT001 - the vendor's signature
    def get_timing_cache(self) -> TimingCache | None: ...
    def set_compute_capability(self, capability: Member, index: int, /) -> bool: ...


class Builder(Protocol):
    """``Builder``."""

    @property
    def num_DLA_cores(self) -> int: ...  # noqa: N802 - the vendor's name
    def create_network(self, flags: int, /) -> Network | None: ...
    def create_builder_config(self) -> BuilderConfig: ...
    def create_optimization_profile(self) -> OptimizationProfile: ...
    def build_serialized_network(
        self, network: Network, config: BuilderConfig, /
    ) -> HostMemory | None: ...


class EngineInspector(Protocol):
    """``EngineInspector``."""

    def get_engine_information(self, form: Member, /) -> str: ...


class RuntimeCache(Protocol):
    """``IRuntimeCache``."""

    def deserialize(self, blob: bytes, /) -> bool: ...
    def serialize(self) -> HostMemory | None: ...


class RuntimeConfig(Protocol):
    """``IRuntimeConfig``."""

    dynamic_shapes_kernel_specialization_strategy: Member

    def create_runtime_cache(self) -> RuntimeCache | None: ...
    def set_runtime_cache(self, cache: RuntimeCache, /) -> bool: ...
    def set_execution_context_allocation_strategy(self, strategy: Member, /) -> None: ...


class Context(Protocol):
    """``IExecutionContext``."""

    profiler: Any

    def set_optimization_profile_async(self, index: int, stream: int, /) -> bool: ...
    def set_input_shape(self, name: str, shape: tuple[int, ...], /) -> bool: ...
    def infer_shapes(self) -> Sequence[str]: ...
    def get_tensor_shape(self, name: str, /) -> Sequence[int]: ...
    def set_tensor_address(self, name: str, address: int, /) -> bool: ...
    def set_device_memory(self, address: int, size: int, /) -> None: ...
    def execute_async_v3(self, stream: int, /) -> bool: ...
    def is_stream_capturable(self, stream: int, /) -> bool: ...


class CudaEngine(Protocol):
    """``ICudaEngine``."""

    @property
    def num_io_tensors(self) -> int: ...
    @property
    def num_optimization_profiles(self) -> int: ...
    @property
    def device_memory_size_v2(self) -> int: ...
    def get_tensor_name(self, index: int, /) -> str: ...
    def get_tensor_mode(self, name: str, /) -> Member: ...
    def get_tensor_dtype(self, name: str, /) -> Member: ...
    def get_tensor_shape(self, name: str, /) -> Sequence[int]: ...
    def get_tensor_location(self, name: str, /) -> Member: ...
    def get_tensor_profile_shape(self, name: str, profile: int, /) -> Sequence[Sequence[int]]: ...
    def create_execution_context(self, strategy: Member | RuntimeConfig, /) -> Context | None: ...
    def create_runtime_config(self) -> RuntimeConfig | None: ...
    def create_engine_inspector(self) -> EngineInspector: ...


class Runtime(Protocol):
    """``Runtime``."""

    DLA_core: int

    def deserialize_cuda_engine(self, plan: bytes, /) -> CudaEngine | None: ...


class Profiler(Protocol):
    """``IProfiler``, which we subclass."""

    def report_layer_time(self, layer: str, ms: float) -> None: ...


class InputOutputModes(Protocol):
    """``TensorIOMode``."""

    INPUT: Member


class TensorLocations(Protocol):
    """``TensorLocation``."""

    DEVICE: Member


class AllocationStrategies(Protocol):
    """``ExecutionContextAllocationStrategy``."""

    USER_MANAGED: Member


class SpecializationStrategies(Protocol):
    """``DynamicShapesKernelSpecializationStrategy``."""

    EAGER: Member


class BuilderFlags(Protocol):
    """``BuilderFlag``."""

    TF32: Member
    GPU_FALLBACK: Member


class NetworkFlags(Protocol):
    """``NetworkDefinitionCreationFlag``."""

    STRONGLY_TYPED: Member


class ParserFlags(Protocol):
    """``OnnxParserFlag``."""

    ADJUST_FOR_DLA: Member


class MemoryPools(Protocol):
    """``MemoryPoolType``."""

    WORKSPACE: Member


class Verbosities(Protocol):
    """``ProfilingVerbosity``."""

    DETAILED: Member


class DeviceTypes(Protocol):
    """``DeviceType``."""

    DLA: Member


class InformationFormats(Protocol):
    """``LayerInformationFormat``."""

    JSON: Member


class BuilderClass(Protocol):
    """Makes a ``Builder``."""

    def __call__(self, logger: Logger, /) -> Builder: ...


class ParserClass(Protocol):
    """Makes an ``OnnxParser``."""

    def __call__(self, network: Network, logger: Logger, /) -> Parser: ...


class RuntimeClass(Protocol):
    """Makes a ``Runtime``."""

    def __call__(self, logger: Logger, /) -> Runtime: ...


class TensorRtModule(Protocol):
    """The module."""

    __version__: str
    # Base classes of ours: mypy takes no variable for one but an Any.
    IProgressMonitor: Any
    ILogger: Any
    IProfiler: Any

    Runtime: RuntimeClass
    TensorIOMode: InputOutputModes
    TensorLocation: TensorLocations
    ExecutionContextAllocationStrategy: AllocationStrategies
    DynamicShapesKernelSpecializationStrategy: SpecializationStrategies
    Builder: BuilderClass
    OnnxParser: ParserClass
    BuilderFlag: BuilderFlags
    NetworkDefinitionCreationFlag: NetworkFlags
    OnnxParserFlag: ParserFlags
    MemoryPoolType: MemoryPools
    ProfilingVerbosity: Verbosities
    DeviceType: DeviceTypes
    LayerInformationFormat: InformationFormats
    ComputeCapability: Any

    def nptype(self, data_type: Member, /) -> type: ...


CLASSES: Mapping[str, type] = MappingProxyType(
    {
        "ILogger": Logger,
        "ILogger.Severity": Severities,
        "IProgressMonitor": ProgressMonitor,
        "ITensor": Tensor,
        "ILayer": Layer,
        "INetworkDefinition": Network,
        "ParserError": ParserError,
        "OnnxParser": Parser,
        "IOptimizationProfile": OptimizationProfile,
        "IHostMemory": HostMemory,
        "ITimingCache": TimingCache,
        "IBuilderConfig": BuilderConfig,
        "Builder": Builder,
        "EngineInspector": EngineInspector,
        "ICudaEngine": CudaEngine,
        "IExecutionContext": Context,
        "Runtime": Runtime,
        "IProfiler": Profiler,
        "TensorIOMode": InputOutputModes,
        "TensorLocation": TensorLocations,
        "ExecutionContextAllocationStrategy": AllocationStrategies,
        "IRuntimeCache": RuntimeCache,
        "IRuntimeConfig": RuntimeConfig,
        "DynamicShapesKernelSpecializationStrategy": SpecializationStrategies,
        "BuilderFlag": BuilderFlags,
        "NetworkDefinitionCreationFlag": NetworkFlags,
        "OnnxParserFlag": ParserFlags,
        "MemoryPoolType": MemoryPools,
        "ProfilingVerbosity": Verbosities,
        "DeviceType": DeviceTypes,
        "LayerInformationFormat": InformationFormats,
    }
)
"""What stands for which class of the vendor's."""

FEATURE_NAMES: Mapping[Feature, frozenset[str]] = MappingProxyType(
    {
        Feature.STRONGLY_TYPED_FLAG: frozenset({"NetworkDefinitionCreationFlag.STRONGLY_TYPED"}),
        Feature.TIMING_CACHE: frozenset(
            {
                "IBuilderConfig.create_timing_cache",
                "IBuilderConfig.set_timing_cache",
                "IBuilderConfig.get_timing_cache",
                "ITimingCache.serialize",
            }
        ),
        Feature.RUNTIME_CACHE: frozenset(
            {
                "ICudaEngine.create_runtime_config",
                "IRuntimeCache.deserialize",
                "IRuntimeCache.serialize",
                "IRuntimeConfig.create_runtime_cache",
                "IRuntimeConfig.set_execution_context_allocation_strategy",
                "IRuntimeConfig.set_runtime_cache",
            }
        ),
        Feature.EAGER_KERNELS: frozenset(
            {
                "DynamicShapesKernelSpecializationStrategy",
                "DynamicShapesKernelSpecializationStrategy.EAGER",
                "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
            }
        ),
        Feature.TARGETS: frozenset(
            {
                "ComputeCapability",
                "IBuilderConfig.num_compute_capabilities",
                "IBuilderConfig.set_compute_capability",
            }
        ),
        Feature.ADJUST_FOR_DLA: frozenset({"OnnxParserFlag.ADJUST_FOR_DLA", "OnnxParser.set_flag"}),
        Feature.STREAM_CAPTURABLE: frozenset({"IExecutionContext.is_stream_capturable"}),
    }
)
"""A feature is there when all its names are (and TIMING_CACHE only without COMPILES_WHEN_RUN)."""

COMPILES_WHEN_RUN = "IRuntimeCache"
"""A module that has this compiles kernels when they run, whether or not we can keep them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedNames:
    """``Class.member`` of the vendor's module, or ``Class`` alone."""

    required: frozenset[str]
    optional: Mapping[Feature, frozenset[str]]


def used_names() -> UsedNames:
    """Returns every name that our code uses: those that each version must have, and the others."""
    used = set(_members(TensorRtModule)) | {
        f"{name}.{member}" for name, protocol in CLASSES.items() for member in _members(protocol)
    }
    optional = frozenset().union(*FEATURE_NAMES.values())
    return UsedNames(required=frozenset(used) - optional, optional=FEATURE_NAMES)


def _members(protocol: type) -> set[str]:
    names = set(vars(protocol)) | set(protocol.__annotations__)
    return {name for name in names if not name.startswith("_")}
