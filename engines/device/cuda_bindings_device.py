"""A device through cuda-bindings, NVIDIA's own.

Every function returns ``(CUresult, ...)`` and raises nothing; ``_ask`` looks at each code.
After one was bad, later calls still go through: nothing may be asked past it.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from engines.device.contract import Array, Device, DeviceInfo, Handle, Kind, MemoryState
from engines.device.driver import NON_BLOCKING, DriverRefusal, device_error
from engines.errors import DeviceError, DeviceUnavailableError

_NOT_READY = 600
_PORTABLE = 1
"""CU_MEMHOSTALLOC_PORTABLE: pinned for every context, as for the one of another library."""
_DISABLE_TIMING = 2
"""CU_EVENT_DISABLE_TIMING."""


def import_cuda_bindings() -> ModuleType:
    """Import ``cuda.bindings.driver``; its driver is looked for at the first call.

    Raises:
        DeviceUnavailableError: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise DeviceUnavailableError(
            f"cuda-bindings cannot be used ({error}): install the extra `gpu`, or prefer pycuda"
        ) from error


class CudaBindingsDevice(Device):
    """One GPU, by cuda-bindings."""

    def __init__(self, index: int = 0) -> None:
        """Nothing is taken yet.

        Args:
            index: Of the GPU, as the driver counts.

        Raises:
            DeviceUnavailableError: See ``import_cuda_bindings``.
        """
        super().__init__()
        self._index = index
        self._driver = import_cuda_bindings()
        self._device: Any = None
        self._context: Any = None

    def _ask(self, function: str, *arguments: Any) -> Any:
        code, *results = getattr(self._driver, function)(*arguments)
        if int(code):
            raise DriverRefusal(function, int(code), getattr(code, "name", str(code)))
        return results[0] if len(results) == 1 else results

    # ------------------------------------------------------------------ life

    def _enter(self) -> DeviceInfo:
        self._ask("cuInit", 0)
        self._device = self._ask("cuDeviceGet", self._index)
        info = DeviceInfo(
            library="cuda-bindings",
            library_version=importlib.import_module("cuda.bindings").__version__,
            name=self._ask("cuDeviceGetName", 256, self._device).partition(b"\0")[0].decode(),
            compute_capability=(
                self._attribute("COMPUTE_CAPABILITY_MAJOR"),
                self._attribute("COMPUTE_CAPABILITY_MINOR"),
            ),
            driver_version=self._ask("cuDriverGetVersion"),
            total_bytes=self._ask("cuDeviceTotalMem", self._device),
            is_integrated=bool(self._attribute("INTEGRATED")),
        )
        self._context = self._ask("cuDevicePrimaryCtxRetain", self._device)
        return info

    def _attribute(self, name: str) -> int:
        which = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._ask("cuDeviceGetAttribute", which, self._device))

    def _leave(self) -> None:
        self._context = None
        self._ask("cuDevicePrimaryCtxRelease", self._device)

    def _push(self) -> None:
        self._ask("cuCtxPushCurrent", self._context)

    def _pop(self) -> None:
        self._ask("cuCtxPopCurrent")

    def _translated(self, error: Exception, doing: str) -> DeviceError:
        return device_error(error, doing)

    def _memory(self) -> MemoryState:
        free, total = self._ask("cuMemGetInfo")
        return MemoryState(free_bytes=free, total_bytes=total)

    # ------------------------------------------------------------- resources

    def _take_pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Handle, Array]:
        nbytes = prod(shape) * dtype.itemsize
        address = int(self._ask("cuMemHostAlloc", nbytes, _PORTABLE))
        memory = memoryview((ctypes.c_ubyte * nbytes).from_address(address)).cast("B")
        return address, np.frombuffer(memory, dtype=dtype).reshape(shape)

    def _allocate(self, nbytes: int) -> tuple[Handle, int]:
        address = int(self._ask("cuMemAlloc", nbytes))
        return address, address

    def _open_stream(self) -> tuple[Handle, int]:
        stream = self._ask("cuStreamCreate", NON_BLOCKING)
        return stream, int(stream)

    def _open_event(self, *, timing: bool) -> Handle:
        return self._ask("cuEventCreate", 0 if timing else _DISABLE_TIMING)

    def _begin_capture(self, stream: Handle) -> None:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._ask("cuStreamBeginCapture", stream, mode)

    def _end_capture(self, stream: Handle) -> Handle:
        graph = self._ask("cuStreamEndCapture", stream)
        try:
            return self._ask("cuGraphInstantiate", graph, 0)
        finally:
            self._ask("cuGraphDestroy", graph)

    def _drop_capture(self, stream: Handle) -> None:
        # No error counts: where there is one, the driver has given the capture up too.
        _, graph = self._driver.cuStreamEndCapture(stream)
        if graph is not None and int(graph):
            self._ask("cuGraphDestroy", graph)

    def _load_module(self, image: bytes) -> Handle:
        return self._ask("cuModuleLoadData", image)

    def _free(self, kind: Kind, handle: Handle) -> None:
        self._ask(_FREEING[kind], handle)

    # ------------------------------------------------------------------ work

    def _copy_in(self, address: int, array: Array, stream: Handle) -> None:
        self._ask("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def _copy_out(self, array: Array, address: int, stream: Handle) -> None:
        self._ask("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def _synchronize_stream(self, stream: Handle) -> None:
        self._ask("cuStreamSynchronize", stream)

    def _stream_wait(self, stream: Handle, event: Handle) -> None:
        self._ask("cuStreamWaitEvent", stream, event, 0)

    def _record_event(self, event: Handle, stream: Handle) -> None:
        self._ask("cuEventRecord", event, stream)

    def _event_is_done(self, event: Handle) -> bool:
        try:
            self._ask("cuEventQuery", event)
        except DriverRefusal as refusal:
            if refusal.code != _NOT_READY:
                raise
            return False
        return True

    def _synchronize_event(self, event: Handle) -> None:
        self._ask("cuEventSynchronize", event)

    def _elapsed_ms(self, first: Handle, second: Handle) -> float:
        return float(self._ask("cuEventElapsedTime", first, second))

    def _launch_graph(self, graph: Handle, stream: Handle) -> None:
        self._ask("cuGraphLaunch", graph, stream)

    def _launch_kernel(
        self,
        module: Handle,
        name: str,
        stream: Handle,
        *,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
    ) -> None:
        kernel = self._ask("cuModuleGetFunction", module, name.encode())
        # The driver has copied the values when it returns.
        values = [np.array(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        self._ask("cuLaunchKernel", kernel, *grid, *block, 0, stream, ctypes.addressof(pointers), 0)


_FREEING = {
    Kind.PINNED: "cuMemFreeHost",
    Kind.BUFFER: "cuMemFree",
    Kind.STREAM: "cuStreamDestroy",
    Kind.EVENT: "cuEventDestroy",
    Kind.GRAPH: "cuGraphExecDestroy",
    Kind.MODULE: "cuModuleUnload",
}
