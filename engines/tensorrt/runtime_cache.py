"""Kernels that a library compiles for this GPU when a plan runs, and what is kept of them.

TensorRT-RTX leaves to the first runs what TensorRT does while it builds. What it compiled, it hands
out as bytes and takes again at the next start; it looks by itself whether they fit GPU, driver and
version. They are kept beside the plan, under this device's seal: to load them is to run them.

Nothing here is fatal: without the bytes everything is compiled again.
"""

from __future__ import annotations

import structlog

from engines.errors import EngineMemoryError, PlanStoreError
from engines.plans.key import PlanKey
from engines.plans.store import PlanStore
from engines.tensorrt.interface import CudaEngine, Feature, Member, RuntimeCache, RuntimeConfig
from engines.tensorrt.library import TensorRtLibrary

_log = structlog.get_logger()

_BINDINGS_RAISE = (RuntimeError, TypeError, ValueError, MemoryError)
"""What the bindings make of a failure of the library, and of an object that it did not give."""


class CompiledKernels:
    """The library's side: one cache, which all contexts of a plan share and none outlives.

    The device is current in all of it.
    """

    def __init__(self, library: TensorRtLibrary, engine: CudaEngine, kept: bytes) -> None:
        """Opens the cache of an engine; where the library has none, it does nothing.

        Args:
            library: Whose engine it is.
            engine: The vendor's.
            kept: What ``content`` gave before; empty for nothing.
        """
        self._library = library
        self._cache: RuntimeCache | None = None
        self.refusal = ""
        """Why what was kept is of no use; empty where it is, and where nothing was."""
        if Feature.RUNTIME_CACHE in library.features:
            self._cache = self._filled(engine, kept) if kept else None
            self._cache = self._cache or self._empty(engine)

    def config(self, engine: CudaEngine, strategy: Member) -> RuntimeConfig | None:
        """Returns how one more context is to be made; None: by the strategy alone.

        Args:
            engine: The vendor's.
            strategy: Who gives the context its memory.
        """
        if self._cache is None:
            return None
        try:
            config = engine.create_runtime_config()
            if config is None or not config.set_runtime_cache(self._cache):
                self._tell_unused("no context takes it")
                return None
            config.set_execution_context_allocation_strategy(strategy)
            if Feature.EAGER_KERNELS in self._library.features:
                # In the background they would come after the warm-up: too late to be kept, too
                # late for what a CUDA graph holds, and other ones than those that were proven.
                strategies = self._library.module.DynamicShapesKernelSpecializationStrategy
                config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        except _BINDINGS_RAISE as error:
            self._tell_unused(str(error))
            return None
        return config

    def content(self) -> bytes:
        """Returns what was compiled so far; empty where the library tells nothing."""
        if self._cache is None:
            return b""
        try:
            memory = self._cache.serialize()
            return b"" if memory is None else bytes(memory)
        except _BINDINGS_RAISE as error:
            self._tell_unused(str(error))
            return b""

    def close(self) -> None:
        """Drops the vendor's; contexts were closed before."""
        self._cache = None

    def _empty(self, engine: CudaEngine) -> RuntimeCache | None:
        try:
            config = engine.create_runtime_config()
            cache = None if config is None else config.create_runtime_cache()
        except _BINDINGS_RAISE as error:
            self._tell_unused(str(error))
            return None
        if cache is None:
            self._tell_unused("the library makes none")
        return cache

    def _filled(self, engine: CudaEngine, kept: bytes) -> RuntimeCache | None:
        """One with what was kept; None, and ``refusal``, where that is of no use."""
        cache = self._empty(engine)
        if cache is None:
            return None
        with self._library.router.listening() as messages:
            try:
                is_taken = cache.deserialize(kept)
                reason = "; ".join(messages.errors[:1])
            except _BINDINGS_RAISE as error:
                is_taken, reason = False, str(error)
        if not is_taken:
            self.refusal = f"the library does not take it: {reason or 'it gave no reason'}"
        return cache if is_taken else None

    def _tell_unused(self, reason: str) -> None:
        _log.warning(
            "engine.runtime_cache_unused",
            backend=self._library.backend.value,
            version=self._library.version,
            reason=reason,
        )


class KeptKernels:
    """The store's side: what is kept for the plan that is opened."""

    def __init__(self, plans: PlanStore) -> None:
        self._plans = plans
        self._kept_bytes = 0

    def find(self, key: PlanKey) -> bytes:
        """Returns what is kept; empty where there is nothing, or it cannot be read."""
        try:
            found = self._plans.runtime_cache(key)
        except (PlanStoreError, EngineMemoryError) as error:
            _log.warning("engine.runtime_cache_not_read", reason=str(error))
            found = b""
        self._kept_bytes = len(found)
        return found

    def put_aside(self, key: PlanKey, reason: str) -> None:
        """Moves what is kept away, so that the next start does without."""
        if not self._kept_bytes:
            return
        self._kept_bytes = 0
        try:
            self._plans.quarantine_runtime_cache(key, reason)
        except PlanStoreError as error:
            _log.warning("engine.runtime_cache_not_put_aside", reason=str(error))

    def keep(self, key: PlanKey, content: bytes) -> None:
        """Keeps what was compiled, if that is more than what is kept."""
        if len(content) <= self._kept_bytes:
            return
        try:
            self._plans.keep_runtime_cache(key, content)
        except PlanStoreError as error:
            _log.warning("engine.runtime_cache_not_kept", reason=str(error))
