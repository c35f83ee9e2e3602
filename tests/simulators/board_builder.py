"""The building half of a TensorRT on a board with DLAs, as far as our adapter asks it.

What no TensorRT on a machine without such a board can show: DLAs and which layers they take, and a
timing cache that a build fills. ``board_module`` has names of the bindings 10.16; a layer is a
node of the ONNX file. Nothing is computed: a plan is the model's bytes.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from engines.contract import Backend
from engines.tensorrt.interface import Feature
from engines.tensorrt.library import TensorRtLibrary, find_features
from engines.tensorrt.messages import MessageRouter, make_logger

TIMED = b"timings of this board:"


class Board:
    """The hardware, and what tests ask about its use."""

    def __init__(self, *, dla_cores: int = 2, dla_takes: Sequence[str] = ("Conv", "Relu")) -> None:
        self.dla_cores = dla_cores
        self.dla_takes = frozenset(dla_takes)
        self.alive: Counter[str] = Counter()
        self.configs: list[BuilderConfig] = []
        self.parser_flags: set[OnnxParserFlag] = set()
        self.network_flags: list[int] = []
        self.refuses_with: list[str] = []
        """What the next build says instead of building."""
        self.raises: BaseException | None = None
        self.has_gpu = True
        self.takes_strong_types = True
        self.takes_profiles = True

    def born(self, thing: object) -> None:
        kind = type(thing).__name__
        self.alive[kind] += 1
        weakref.finalize(thing, self._gone, kind)

    def _gone(self, kind: str) -> None:
        self.alive[kind] -= 1


class BuilderFlag(IntEnum):
    GPU_FALLBACK = 3
    TF32 = 7


class NetworkDefinitionCreationFlag(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class OnnxParserFlag(IntEnum):
    ADJUST_FOR_DLA = 3


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(IntEnum):
    DETAILED = 1


class DeviceType(IntEnum):
    GPU = 0
    DLA = 1


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase: str) -> None:
        raise NotImplementedError


class HostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> HostMemory:
        return HostMemory(self.content)


class Tensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name: str = value.name
        self.shape = tuple(
            size.dim_value if size.HasField("dim_value") else -1
            for size in value.type.tensor_type.shape.dim
        )


class Layer:
    def __init__(self, node: onnx.NodeProto) -> None:
        self.name: str = node.name
        self.kind: str = node.op_type


class Network:
    def __init__(self) -> None:
        self.content = b""
        self.layers: list[Layer] = []
        self.inputs: list[Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


class OptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, Sequence[Sequence[int]]] = {}

    def set_shape(
        self, name: str, least: Sequence[int], best: Sequence[int], most: Sequence[int]
    ) -> None:
        self.shapes[name] = (least, best, most)


class BuilderConfig:
    def __init__(self, board: Board) -> None:
        self._board = board
        self.flags = {BuilderFlag.TF32}
        self.limits: dict[MemoryPoolType, int] = {}
        self.profiles: list[OptimizationProfile] = []
        self.builder_optimization_level = 3
        self.default_device_type = DeviceType.GPU
        self.DLA_core = -1
        self.profiling_verbosity = 0
        self.progress_monitor: IProgressMonitor | None = None
        self.timing_cache: TimingCache | None = None

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1 if self._board.takes_profiles else -1

    def can_run_on_DLA(self, layer: Layer) -> bool:  # noqa: N802 - the vendor's name
        return layer.kind in self._board.dla_takes

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.limits[pool] = size

    def create_timing_cache(self, blob: bytes) -> TimingCache:
        return TimingCache(blob)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch, "timings of another device mislead"
        if cache.content and not cache.content.startswith(TIMED):
            return False
        self.timing_cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.timing_cache


class ParserError:
    def code(self) -> str:
        return "ErrorCode.MODEL_DESERIALIZE_FAILED"

    def desc(self) -> str:
        return "Failed to parse the ONNX model."

    def node_name(self) -> str:
        return ""

    def node_operator(self) -> str:
        return ""


class OnnxParser:
    def __init__(self, board: Board, network: Network) -> None:
        self._board = board
        self._network = network
        self.num_errors = 0
        board.born(self)

    def set_flag(self, flag: OnnxParserFlag) -> None:
        self._board.parser_flags.add(flag)

    def get_error(self, index: int) -> ParserError:
        assert index < self.num_errors
        return ParserError()

    def parse(self, model: bytes) -> bool:
        try:
            graph = onnx.load_model_from_string(model).graph
        except DecodeError:
            self.num_errors = 1
            return False
        self._network.content = model
        self._network.layers = [Layer(node) for node in graph.node]
        self._network.inputs = [Tensor(value) for value in graph.input]
        return True


class Builder:
    def __init__(self, board: Board, logger: ILogger) -> None:
        self._board = board
        self._logger = logger
        board.born(self)

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802 - the vendor's name
        return self._board.dla_cores

    def create_network(self, flags: int) -> Network | None:
        self._board.network_flags.append(flags)
        return Network() if self._board.takes_strong_types else None

    def create_builder_config(self) -> BuilderConfig:
        config = BuilderConfig(self._board)
        self._board.configs.append(config)
        return config

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile()

    def build_serialized_network(
        self, network: Network, config: BuilderConfig
    ) -> HostMemory | None:
        if self._board.raises is not None:
            raise self._board.raises
        for text in self._board.refuses_with:
            self._logger.log(ILogger.Severity.ERROR, text)
        if self._board.refuses_with:
            return None
        if config.timing_cache is not None:
            digest = hashlib.sha256(network.content).hexdigest()
            config.timing_cache.content = (config.timing_cache.content or TIMED) + digest.encode()
        return HostMemory(network.content)


def board_module(board: Board) -> Any:
    """Return ``tensorrt``, of one board."""

    def builder(logger: ILogger) -> Builder:
        if not board.has_gpu:
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Builder(board, logger)

    return SimpleNamespace(
        __version__="10.16.1",
        Builder=builder,
        OnnxParser=lambda network, _: OnnxParser(board, network),
        IBuilderConfig=BuilderConfig,
        ITimingCache=TimingCache,
        BuilderFlag=BuilderFlag,
        DeviceType=DeviceType,
        ILogger=ILogger,
        IProgressMonitor=IProgressMonitor,
        MemoryPoolType=MemoryPoolType,
        NetworkDefinitionCreationFlag=NetworkDefinitionCreationFlag,
        OnnxParserFlag=OnnxParserFlag,
        ProfilingVerbosity=ProfilingVerbosity,
    )


def board_library(board: Board) -> TensorRtLibrary:
    """Return the library as our adapter has it."""
    module = board_module(board)
    router = MessageRouter()
    return TensorRtLibrary(
        backend=Backend.TENSORRT,
        module=module,
        version=module.__version__,
        features=find_features(module) | {Feature.ADJUST_FOR_DLA},
        logger=make_logger(module, router),
        router=router,
    )
