"""What TensorRT-RTX has beyond the others when it runs: kernels are compiled then, and can be kept.

Stricter than the vendor, who leaves open who keeps what alive: a cache must outlive the contexts
that use it, and a context's configuration the context. See ``tensorrt_runtime``.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from enum import Enum
from typing import Any

from simulators.tensorrt_runtime import CapturableContext, CudaEngine, ExecutionContext, World
from simulators.tensorrt_words import (
    ExecutionContextAllocationStrategy,
    IHostMemory,
    ILogger,
    Severity,
)

MAGIC = b"kernels of the simulated TensorRT\n"


class DynamicShapesKernelSpecializationStrategy(Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class IRuntimeCache:
    def __init__(self, world: World, logger: ILogger) -> None:
        self._world = world
        self._logger = logger
        self.kernels: set[str] = set()
        world.born(self, "runtime cache")

    def deserialize(self, blob: bytes) -> bool:
        raise_if_told(self._world, "deserialize")
        faults, body = self._world.faults, bytes(blob)[len(MAGIC) + 32 :]
        if faults.no_kernels_taken:
            faults.no_kernels_taken -= 1
            self._logger.log(Severity.ERROR, "Runtime cache: the driver is older than the cache's")
            return False
        if not self._is_intact(bytes(blob), body):
            return False
        content = json.loads(body)
        if content["version"] != self._world.version:
            return False
        self.kernels = set(content["kernels"])
        return True

    def serialize(self) -> IHostMemory:
        raise_if_told(self._world, "serialize")
        content = {"version": self._world.version, "kernels": sorted(self.kernels)}
        body = json.dumps(content).encode()
        return IHostMemory(MAGIC + hashlib.sha256(body).digest() + body)

    @staticmethod
    def _is_intact(blob: bytes, body: bytes) -> bool:
        return blob.startswith(MAGIC + hashlib.sha256(body).digest())


class IRuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def __init__(self, world: World, logger: ILogger) -> None:
        self._world = world
        self._logger = logger
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.cache: weakref.ref[IRuntimeCache] | None = None
        world.born(self, "runtime config")

    def create_runtime_cache(self) -> IRuntimeCache | None:
        raise_if_told(self._world, "create_runtime_cache")
        return IRuntimeCache(self._world, self._logger) if self._world.faults.has_cache else None

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        raise_if_told(self._world, "set_runtime_cache")
        if not self._world.faults.takes_cache:
            return False
        self.cache = weakref.ref(cache)
        return True

    def set_execution_context_allocation_strategy(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
    ) -> None:
        self.strategy = strategy


def raise_if_told(world: World, method: str) -> None:
    """What the bindings do with a failure of the library."""
    if world.faults.raising == method:
        raise RuntimeError(f"{method} failed")


class JitEngine(CudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        raise_if_told(self.world, "create_runtime_config")
        return IRuntimeConfig(self.world, self.runtime.logger)

    def create_execution_context(
        self,
        strategy: (
            ExecutionContextAllocationStrategy | IRuntimeConfig
        ) = ExecutionContextAllocationStrategy.STATIC,
    ) -> ExecutionContext | None:
        if not isinstance(strategy, IRuntimeConfig):
            return super().create_execution_context(strategy)
        context = super().create_execution_context(strategy.strategy)
        if isinstance(context, JitContext):
            context.configure(strategy)
        return context


class JitContext(CapturableContext):
    """Compiles what it runs, and looks for it in its cache before."""

    _cache: weakref.ref[IRuntimeCache] | None = None
    _is_eager = False

    def __init__(self, engine: CudaEngine, strategy: ExecutionContextAllocationStrategy) -> None:
        super().__init__(engine, strategy)
        self._own: set[str] = set()

    def configure(self, config: IRuntimeConfig) -> None:
        self._cache = config.cache
        strategies = DynamicShapesKernelSpecializationStrategy
        self._is_eager = config.dynamic_shapes_kernel_specialization_strategy is strategies.EAGER
        self._needs(weakref.ref(config))
        if config.cache is not None:
            self._needs(config.cache)

    def _needs(self, other: weakref.ref[Any]) -> None:
        weakref.finalize(self, _check_alive, self.world, other).atexit = False

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._compile()
        return super().execute_async_v3(stream_handle)

    def _compile(self) -> None:
        digest = hashlib.sha256(self.engine.model.content).hexdigest()
        kernel = f"{digest} {sorted(self._inputs.items())}"
        cache = self._cache() if self._cache is not None else None
        known = cache.kernels if cache is not None else self._own
        if kernel in known or kernel in self._own:
            return
        self.world.compiled += 1
        # Lazily it is done in the background, later than anybody here looks.
        (known if self._is_eager else self._own).add(kernel)


def _check_alive(world: World, needed: weakref.ref[Any]) -> None:
    if needed() is None:
        world.violations.append("a context outlived its configuration or its runtime cache")
