"""A stand-in for the modules ``tensorrt`` and ``tensorrt_rtx``: the half that builds plans.

``simulated_tensorrt`` puts the module together. A plan holds the model as it was parsed, so that
what runs later is what was built, whatever became of the model file. Plans of one model differ in
their bytes, as the vendor's do. It can have what only a board has: DLAs, which take some layers.
"""

from __future__ import annotations

import secrets
import types
from collections.abc import Sequence
from copy import copy
from typing import Any

from engines.contract import Backend
from simulators import tensorrt_jit as jit
from simulators import tensorrt_runtime as running
from simulators import tensorrt_words as words
from simulators.tensorrt_runtime import Faults, Launcher, Model, World
from simulators.tensorrt_words import (
    BuilderFlag,
    DeviceType,
    ILogger,
    IProgressMonitor,
    Severity,
)

VERSIONS = {Backend.TENSORRT: "10.16.1", Backend.TENSORRT_RTX: "1.7.1.116"}
_MODULE_NAMES = {Backend.TENSORRT: "tensorrt", Backend.TENSORRT_RTX: "tensorrt_rtx"}
TIMED = b"timings of this GPU:"
"""So begins a timing cache; one that begins otherwise is of another GPU."""
_STEPS = 2
_NO_PROFILE = "Network has dynamic or shape inputs, but no optimization profile has been defined."


class ITensor:
    name = ""
    shape = words.Dims(())

    def __init__(self, node: Any) -> None:
        self.name = node.name
        self.shape = words.Dims(words.free_shape(node))
        self.dtype = words.DATA_TYPES[node.type]


class ILayer:
    name = ""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind


class INetworkDefinition:
    def __init__(self) -> None:
        self.model: Model | None = None

    @property
    def num_inputs(self) -> int:
        return 0 if self.model is None else len(self.model.session.get_inputs())

    @property
    def num_layers(self) -> int:
        return 0 if self.model is None else len(self.model.layers)

    def get_input(self, index: int) -> ITensor:
        assert self.model is not None
        return ITensor(self.model.session.get_inputs()[index])

    def get_layer(self, index: int) -> ILayer:
        assert self.model is not None
        return ILayer(*self.model.layers[index])


class ParserError:
    """All are methods, as in the bindings."""

    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text

    def code(self) -> words.ErrorCode:
        return words.ErrorCode.MODEL_DESERIALIZE_FAILED

    def node_name(self) -> str:
        return ""

    def node_operator(self) -> str:
        return ""


class OnnxParser:
    world: World

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._logger = logger
        self._errors: list[ParserError] = []
        self.world.born(self, "parser")

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def set_flag(self, flag: words.OnnxParserFlag) -> None:
        assert isinstance(flag, words.OnnxParserFlag)
        self.world.parser_flags.add(flag)

    def parse(self, model: bytes, path: str | None = None) -> bool:
        assert path is None, "weights outside of the model are not read"
        try:
            self._network.model = self.world.model(bytes(model))
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no base
            self._errors.append(ParserError(f"Failed to parse the ONNX model. ({error})"[:200]))
            self._logger.log(Severity.ERROR, "ModelImporter.cpp: Failed to parse the ONNX model.")
            return False
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(
        self, name: str, least: Sequence[int], best: Sequence[int], most: Sequence[int]
    ) -> None:
        self.shapes[name] = [list(least), list(best), list(most)]


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> words.IHostMemory:
        return words.IHostMemory(self.content)


class IBuilderConfig:
    world: World
    builder_optimization_level = 3
    profiling_verbosity = words.ProfilingVerbosity.LAYER_NAMES_ONLY
    default_device_type = DeviceType.GPU
    DLA_core = -1
    progress_monitor: IProgressMonitor | None = None

    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.limits: dict[words.MemoryPoolType, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self._timing_cache: ITimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: words.MemoryPoolType, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return -1 if self.world.faults.no_profile else len(self.profiles) - 1

    def can_run_on_DLA(self, layer: ILayer) -> bool:  # noqa: N802 - the vendor's name
        return layer.kind in self.world.faults.dla_takes

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch, "timings of another device mislead"
        if cache.content and not cache.content.startswith(TIMED):
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing_cache


class TargetingConfig(IBuilderConfig):
    """As RTX has it: a build can be for other GPUs."""

    num_compute_capabilities = 0

    def set_compute_capability(
        self, compute_capability: words.ComputeCapability, index: int
    ) -> bool:
        assert isinstance(compute_capability, words.ComputeCapability)
        return index < self.num_compute_capabilities


class Builder:
    world: World
    config_type: type[IBuilderConfig] = IBuilderConfig

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802 - the vendor's name
        return self.world.faults.dla_cores

    def __init__(self, logger: ILogger) -> None:
        if self.world.faults.no_builder:
            running.refuse_without_gpu(logger)
        self._logger = logger
        self.world.born(self, "builder")

    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        self.world.network_flags.append(flags)
        is_made = 0 <= flags <= 3 and not self.world.faults.no_network
        return INetworkDefinition() if is_made else None

    def create_builder_config(self) -> IBuilderConfig:
        return self.config_type()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> words.IHostMemory | None:
        self.world.builds += 1
        asked = copy(config)
        asked.progress_monitor = None  # whose error may hold the builder
        self.world.configs.append(asked)
        if self.world.faults.build_raises is not None:
            raise self.world.faults.build_raises
        refusal = self._refusal(network, config)
        if not refusal and not _all_steps(config.progress_monitor):
            refusal = ("Error Code 7: BuildCanceled (Build canceled by user)",)
        for text in refusal:
            self._logger.log(Severity.ERROR, text)
        if refusal or network.model is None:
            return None
        cache = config.get_timing_cache()
        if cache is not None:
            cache.content = (cache.content or TIMED) + b"one more tactic timed\n"
        version = "none" if self.world.faults.broken_plan else self.world.version
        header = {
            "version": version,
            "profiles": [each.shapes for each in config.profiles],
            "dla_core": config.DLA_core,
            "salt": secrets.token_hex(8),
        }
        return words.IHostMemory(running.sealed_plan(header, network.model.content))

    def _refusal(self, network: INetworkDefinition, config: IBuilderConfig) -> tuple[str, ...]:
        if self.world.faults.no_plan:
            return self.world.faults.no_plan
        if network.model is None:
            return ("Error Code 4: Internal Error (Network must have at least one output.)",)
        free = [
            node.name for node in network.model.session.get_inputs() if -1 in words.free_shape(node)
        ]
        if free and not config.profiles:
            return (_NO_PROFILE,)
        for name in free:
            if any(name not in profile.shapes for profile in config.profiles):
                return (f"Dynamic input tensor {name} is missing dimensions in profile 0",)
        return ()


def _all_steps(monitor: IProgressMonitor | None) -> bool:
    if monitor is None:
        return True
    monitor.phase_start("Building engine", None, _STEPS)
    goes_on = all(monitor.step_complete("Building engine", step) for step in range(_STEPS))
    monitor.phase_finish("Building engine")
    return goes_on


def simulated_tensorrt(
    launcher: Launcher, faults: Faults | None = None, backend: Backend = Backend.TENSORRT
) -> tuple[Any, World]:
    """Return a fresh module, and the world that its objects share."""
    world = World(launcher, faults or Faults(), VERSIONS[backend])
    is_rtx = backend is Backend.TENSORRT_RTX
    engine = jit.JitEngine if is_rtx else running.CudaEngine
    context = jit.JitContext if is_rtx else running.ExecutionContext
    module = types.ModuleType(_MODULE_NAMES[backend])
    shared = {"world": world}
    config = type("IBuilderConfig", (TargetingConfig if is_rtx else IBuilderConfig,), shared)
    names: dict[str, Any] = {
        "__version__": world.version,
        "Builder": type("Builder", (Builder,), {**shared, "config_type": config}),
        "OnnxParser": type("OnnxParser", (OnnxParser,), shared),
        "Runtime": type(
            "Runtime",
            (running.Runtime,),
            {**shared, "engine_type": engine, "context_type": context},
        ),
        "IBuilderConfig": config,
        "ICudaEngine": engine,
        "IExecutionContext": context,
        "nptype": words.nptype,
        **{each.__name__: each for each in _SAME_EVERYWHERE},
    }
    if is_rtx:
        names["ComputeCapability"] = words.ComputeCapability
        for each in _JIT:
            names[each.__name__] = each
    for name, value in names.items():
        setattr(module, name, value)
    return module, world


_JIT: tuple[type, ...] = (
    jit.DynamicShapesKernelSpecializationStrategy,
    jit.IRuntimeCache,
    jit.IRuntimeConfig,
)
_SAME_EVERYWHERE: tuple[type, ...] = (
    ILayer,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    ITimingCache,
    ParserError,
    running.EngineInspector,
    words.BuilderFlag,
    words.DataType,
    words.DeviceType,
    words.Dims,
    words.ExecutionContextAllocationStrategy,
    words.IHostMemory,
    words.ILogger,
    words.IProfiler,
    words.IProgressMonitor,
    words.LayerInformationFormat,
    words.MemoryPoolType,
    words.NetworkDefinitionCreationFlag,
    words.OnnxParserFlag,
    words.ProfilingVerbosity,
    words.TensorIOMode,
    words.TensorLocation,
)
