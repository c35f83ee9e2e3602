"""The bare loop around a plan: TensorRT and copies, without checks, without anything of ``Engine``.

What our engine costs beyond this is what its promises cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.checksums import MAX_FILE_BYTES
from engines.contract import Backend, Precision
from engines.device.contract import Device
from engines.device.opening import open_device
from engines.errors import EngineRunError
from engines.loading import LoadedPackage
from engines.tensorrt.building import BuildRequest, build_plan
from engines.tensorrt.interface import Context
from engines.tensorrt.library import TensorRtLibrary, load_library
from engines.tensorrt.loading import LoadedPlan
from engines.tensorrt.profiles import profiles_of
from tools.gpu_check.subjects import ALL_LIBRARIES, MOST_ITEMS

Array = NDArray[Any]


class BareLoop:
    """One context, one stream, one pinned array on each side; for one shape."""

    def __init__(
        self, device: Device, plan: LoadedPlan, shape: tuple[int, ...], stack: ExitStack
    ) -> None:
        """Take memory for one shape, and tell the context of it."""
        self._device = device
        (given,), (wanted,) = plan.inputs, plan.outputs
        module = plan.library.module
        strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = plan.engine.create_execution_context(strategy)
        if context is None:
            raise EngineRunError("the library makes no context")
        self._context: Context | None = context
        stack.callback(self._drop)
        self._stream = device.stream()
        stack.callback(self._stream.free)
        scratch = device.allocate(max(plan.scratch_bytes, 1))
        stack.callback(scratch.free)
        context.set_device_memory(scratch.address, scratch.nbytes)
        profile = plan.profile_for([(given.name, shape)])
        if profile is None:
            raise EngineRunError(f"the plan is not for {shape}")
        context.set_optimization_profile_async(profile, self._stream.pointer)
        context.set_input_shape(given.name, shape)
        context.infer_shapes()
        answered = tuple(int(size) for size in context.get_tensor_shape(wanted.name))
        self._in = device.pinned(shape, given.element_type.dtype)
        stack.callback(self._in.free)
        self._out = device.pinned(answered, wanted.element_type.dtype)
        stack.callback(self._out.free)
        self._here = device.allocate(prod(shape) * given.element_type.dtype.itemsize)
        stack.callback(self._here.free)
        self._there = device.allocate(prod(answered) * wanted.element_type.dtype.itemsize)
        stack.callback(self._there.free)
        context.set_tensor_address(given.name, self._here.address)
        context.set_tensor_address(wanted.name, self._there.address)

    def fill(self, array: Array) -> None:
        """Put the input where the loop reads it, once."""
        np.copyto(self._in.array, array)

    def ask(self) -> None:
        """Ask for copy, plan, copy; wait for nothing."""
        self._device.copy_in(self._here, self._in.array, self._stream)
        if self._context is None or not self._context.execute_async_v3(self._stream.pointer):
            raise EngineRunError("the library refused to run")
        self._device.copy_out(self._out.array, self._there, self._stream)

    def compute(self) -> None:
        """Ask for the plan alone."""
        if self._context is None or not self._context.execute_async_v3(self._stream.pointer):
            raise EngineRunError("the library refused to run")

    def wait(self) -> Array:
        """Wait for all that was asked; the array is used again by the next."""
        self._stream.synchronize()
        return self._out.array

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self._device

    @property
    def stream(self) -> Any:
        """In which it runs."""
        return self._stream

    def _drop(self) -> None:
        self._context = None


@contextmanager
def bare_loop(
    package: LoadedPackage, backend: Backend, precision: Precision, shape: tuple[int, ...]
) -> Iterator[BareLoop]:
    """Build a plan as our engine does, and open the loop around it; the device is current.

    Raises:
        EngineError: The library or the GPU is not here, or refused.
    """
    library = load_library(backend)
    content = built_plan(library, package, precision)
    with open_device(ALL_LIBRARIES) as device, loop_on(device, library, content, shape) as loop:
        yield loop


@contextmanager
def loop_on(
    device: Device, library: TensorRtLibrary, plan: bytes, shape: tuple[int, ...]
) -> Iterator[BareLoop]:
    """Open the loop on a device that is entered, and current while the loop lives.

    Raises:
        EngineError: The library or the device refused.
    """
    with ExitStack() as stack:
        stack.enter_context(device.current())
        loaded = LoadedPlan(library, plan, None)
        stack.callback(loaded.close)
        yield BareLoop(device, loaded, shape, stack)


def built_plan(library: TensorRtLibrary, package: LoadedPackage, precision: Precision) -> bytes:
    """Build a plan as our engine does.

    Raises:
        EngineError: The library refused.
    """
    request = BuildRequest(
        profiles=profiles_of(package.manifest.input, MOST_ITEMS), precision=precision
    )
    return build_plan(library, package.model.read(MAX_FILE_BYTES), request).plan
