"""From a plan to what a device can run, or to the reason why not.

Only plans that this device's own seal admits come here: to deserialise one is to run it.

The vendor's objects are kept in one place each and dropped by ``close``. Nothing else holds one,
not even the frames of an error that is on its way: one that outlives the device's context cannot
give back what it took.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from engines.contract import FREE, ElementType, TensorSpec
from engines.errors import (
    EngineLoadError,
    EngineMemoryError,
    EngineStateError,
    EngineUnavailableError,
    PlanRejectedError,
)
from engines.tensorrt.interface import CudaEngine, Runtime, RuntimeConfig
from engines.tensorrt.library import TensorRtLibrary
from engines.tensorrt.messages import Messages
from engines.tensorrt.profiles import Profile, ShapeRange
from engines.tensorrt.runtime_cache import CompiledKernels

_OF_MEMORY = ("outofmemory", "out of memory", "memory allocation")
_LONGEST_REASON = 400


class LoadedPlan:
    """A plan that a library took, and what it says of itself."""

    def __init__(
        self, library: TensorRtLibrary, plan: bytes, dla_core: int | None, *, kernels: bytes = b""
    ) -> None:
        """Loads a plan; the device is current, here and in all that is asked of the vendor.

        Args:
            library: Which built the plan.
            plan: Admitted by this device's own seal.
            dla_core: For which it was built.
            kernels: What ``compiled_kernels`` gave before; empty for none.

        Raises:
            EngineUnavailableError: The library makes no runtime here.
            PlanRejectedError: The library does not take the plan.
            EngineMemoryError: There was too little memory for it.
            EngineLoadError: It is of a model that we cannot run.
        """
        self.library = library
        self._runtime: Runtime | None = None
        self._engine: CudaEngine | None = None
        self._kernels: CompiledKernels | None = None
        try:
            with library.router.listening() as messages:
                self._load(plan, dla_core, messages)
            self._kernels = CompiledKernels(library, self.engine, kernels)
            self.kernels_refusal = self._kernels.refusal
            """Why the kernels of before are of no use; empty where they are, or there are none."""
            inputs, self.outputs = self._tensors()
            self.profiles = self._profiles(inputs)
            self.inputs = tuple(self._as_built(spec) for spec in inputs)
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> CudaEngine:
        """The vendor's; do not keep it."""
        if self._engine is None:
            raise EngineStateError("the plan is closed")
        return self._engine

    @property
    def scratch_bytes(self) -> int:
        """What running takes beside inputs and outputs."""
        return int(self.engine.device_memory_size_v2)

    def compiled_kernels(self) -> bytes:
        """Returns the kernels that were compiled so far; empty where a plan holds all."""
        return b"" if self._kernels is None else self._kernels.content()

    def context_config(self) -> RuntimeConfig | None:
        """How one more context is made; None: by the strategy. Keep it while the context lives."""
        strategy = self.library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        return None if self._kernels is None else self._kernels.config(self.engine, strategy)

    def close(self) -> None:
        """Gives back what the library took; contexts were closed before."""
        if self._kernels is not None:
            self._kernels.close()
        self._kernels = None
        self._engine = None
        self._runtime = None

    def profile_for(self, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> int | None:
        """Returns the narrowest profile for these inputs; None where there is none."""
        wanted = dict(shapes)
        fitting = (
            index
            for index, profile in enumerate(self.profiles)
            if all(each.allows(wanted[each.name]) for each in profile.ranges)
        )
        return min(fitting, key=lambda index: _items(self.profiles[index]), default=None)

    def _load(self, plan: bytes, dla_core: int | None, messages: Messages) -> None:
        library = self.library
        try:
            self._runtime = library.module.Runtime(library.logger)
        except (TypeError, RuntimeError) as error:
            raise EngineUnavailableError(
                f"{library.backend.value} {library.version} makes no runtime here "
                f"({reason_of(messages) or error}); see that the GPU and its driver work: run "
                "`edge-triage doctor`"
            ) from error
        if dla_core is not None:
            self._runtime.DLA_core = dla_core
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise refusal(
                library,
                "does not take the plan that it built",
                messages,
                otherwise=PlanRejectedError,
                remedy="it has to be built again: run `edge-triage engines build`",
            )

    def _tensors(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        modes = self.library.module.TensorIOMode
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            is_input = self.engine.get_tensor_mode(name) == modes.INPUT
            (inputs if is_input else outputs).append(self._spec(name))
        return tuple(inputs), tuple(outputs)

    def _spec(self, name: str) -> TensorSpec:
        module = self.library.module
        if self.engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
            raise EngineLoadError(
                f"tensor {name!r} is a size that the library wants on the processor; export the "
                "model so that only its batch is free"
            )
        try:
            element_type = ElementType(
                np.dtype(module.nptype(self.engine.get_tensor_dtype(name))).name
            )
        except (TypeError, ValueError) as error:
            raise EngineLoadError(
                f"tensor {name!r} is {self.engine.get_tensor_dtype(name)}; models for this device "
                f"use {', '.join(each.value for each in ElementType)}"
            ) from error
        shape = tuple(
            size if size > 0 else FREE for size in map(int, self.engine.get_tensor_shape(name))
        )
        return TensorSpec(name=name, element_type=element_type, shape=shape)

    def _as_built(self, spec: TensorSpec) -> TensorSpec:
        """The model may leave free what the plan has fixed, as for a DLA."""
        if len(self.profiles) > 1 or not self.profiles[0].is_fixed:
            return spec
        (shape,) = (each.most for each in self.profiles[0].ranges if each.name == spec.name)
        return replace(spec, shape=shape)

    def _profiles(self, inputs: tuple[TensorSpec, ...]) -> tuple[Profile, ...]:
        if not any(FREE in spec.shape for spec in inputs):
            ranges = tuple(_range(spec.name, [spec.shape] * 3) for spec in inputs)
            return (Profile(ranges=ranges),)
        return tuple(
            Profile(
                ranges=tuple(
                    _range(spec.name, self.engine.get_tensor_profile_shape(spec.name, index))
                    for spec in inputs
                )
            )
            for index in range(self.engine.num_optimization_profiles)
        )


def refusal(
    library: TensorRtLibrary,
    what: str,
    messages: Messages,
    *,
    otherwise: type[PlanRejectedError | EngineLoadError],
    remedy: str,
) -> PlanRejectedError | EngineLoadError | EngineMemoryError:
    """The error for what the vendor said: that memory was short has its own."""
    reason = reason_of(messages) or "it gave no reason"
    text = f"{library.backend.value} {library.version} {what}: {reason}"
    if any(word in reason.lower() for word in _OF_MEMORY):
        return EngineMemoryError(
            f"{text}; stop what else uses the GPU, or let the engine take fewer items in one batch"
        )
    return otherwise(f"{text}; {remedy}")


def reason_of(messages: Messages) -> str:
    """What the vendor said first: the cause; empty where it said nothing."""
    return messages.errors[0][:_LONGEST_REASON] if messages.errors else ""


def _range(name: str, shapes: Iterable[Iterable[int]]) -> ShapeRange:
    least, best, most = (tuple(int(size) for size in shape) for shape in shapes)
    return ShapeRange(name=name, least=least, best=best, most=most)


def _items(profile: Profile) -> int:
    return sum(int(np.prod(each.most, dtype=np.int64)) for each in profile.ranges)
