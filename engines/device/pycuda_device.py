"""A device through pycuda.

* The primary context, which TensorRT and ONNX Runtime share; ``pycuda.autoinit`` is never imported.
* pycuda ends the process when a thread ends with a context of it; ``Device`` leaves none.
* Streams, events and modules are freed when their last reference goes, so each is held in a
  ``_Held`` that is emptied, and by nothing else.
* pycuda releases a primary context only in the thread that retained it, and leaves it current
  there, unless it is current in pycuda's own book: see ``_leave``.
* pycuda has no graphs: they are made through the driver itself.
"""

from __future__ import annotations

import ctypes
import importlib
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from engines.device.contract import Array, Device, DeviceInfo, Handle, Kind, MemoryState
from engines.device.driver import (
    NON_BLOCKING,
    DriverRefusal,
    device_error,
    error_name,
    load_driver,
)
from engines.errors import DeviceError, DeviceUnavailableError

_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL."""
_OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


def import_pycuda() -> ModuleType:
    """Import ``pycuda.driver``, which needs a driver here.

    Raises:
        DeviceUnavailableError: It is not installed, or was built for another CUDA.
    """
    try:
        with warnings.catch_warnings():
            # It warns of "header does not match" for every reason that its import has to fail.
            warnings.simplefilter("ignore")
            return importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        raise DeviceUnavailableError(
            f"pycuda is not installed ({error}): install the extra `gpu`"
        ) from error
    except ImportError as error:
        raise DeviceUnavailableError(
            f"pycuda does not fit this driver ({error}): build it with this device's CUDA "
            "(see docs/jetson.md), or prefer cuda-bindings"
        ) from error


@dataclass(slots=True)
class _Held:
    """The only reference to what pycuda frees when the last one goes."""

    content: Any


class PyCudaDevice(Device):
    """One GPU, by pycuda."""

    def __init__(self, index: int = 0) -> None:
        """Nothing is taken yet.

        Args:
            index: Of the GPU, as the driver counts.

        Raises:
            DeviceUnavailableError: See ``import_pycuda``.
        """
        super().__init__()
        self._index = index
        self._driver = import_pycuda()
        self._direct = _DirectCalls()
        self._context: Any = None

    # ------------------------------------------------------------------ life

    def _enter(self) -> DeviceInfo:
        driver = self._driver
        driver.init()
        device = driver.Device(self._index)
        info = DeviceInfo(
            library="pycuda",
            library_version=importlib.import_module("pycuda").VERSION_TEXT,
            name=device.name(),
            compute_capability=device.compute_capability(),
            driver_version=driver.get_driver_version(),
            total_bytes=device.total_memory(),
            is_integrated=bool(device.get_attribute(driver.device_attribute.INTEGRATED)),
        )
        self._context = device.retain_primary_context()
        return info

    def _leave(self) -> None:
        context, self._context = self._context, None
        # Current for pycuda and not for the driver: then `detach` releases it, and no more.
        context.push()
        self._direct.pop_context()
        context.detach()

    def _push(self) -> None:
        self._context.push()

    def _pop(self) -> None:
        self._context.pop()

    def _translated(self, error: Exception, doing: str) -> DeviceError:
        # What its frames hold would be freed only when the error is forgotten: after the device.
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, UnicodeDecodeError):
            said = _readable_part(error)
            return device_error(RuntimeError(said), doing, is_out_of_memory=_OUT_OF_MEMORY in said)
        is_out_of_memory = isinstance(error, self._driver.MemoryError)
        return device_error(error, doing, is_out_of_memory=is_out_of_memory)

    def _memory(self) -> MemoryState:
        free, total = self._driver.mem_get_info()
        return MemoryState(free_bytes=free, total_bytes=total)

    # ------------------------------------------------------------- resources

    def _take_pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Handle, Array]:
        array = self._driver.pagelocked_empty(shape, dtype)
        return _Held(array.base), array

    def _allocate(self, nbytes: int) -> tuple[Handle, int]:
        allocation = self._driver.mem_alloc(nbytes)
        return _Held(allocation), int(allocation)

    def _open_stream(self) -> tuple[Handle, int]:
        stream = self._driver.Stream(NON_BLOCKING)
        return _Held(stream), stream.handle

    def _open_event(self, *, timing: bool) -> Handle:
        flags = self._driver.event_flags
        return _Held(self._driver.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING))

    def _begin_capture(self, stream: Handle) -> None:
        self._direct.begin_capture(stream.content.handle)

    def _end_capture(self, stream: Handle) -> Handle:
        return self._direct.end_capture(stream.content.handle)

    def _drop_capture(self, stream: Handle) -> None:
        self._direct.drop_capture(stream.content.handle)

    def _load_module(self, image: bytes) -> Handle:
        return _Held(self._driver.module_from_buffer(image))

    def _free(self, kind: Kind, handle: Handle) -> None:
        if kind is Kind.GRAPH:
            self._direct.free_graph(handle)
            return
        try:
            if kind in (Kind.BUFFER, Kind.PINNED):
                handle.content.free()
        finally:
            handle.content = None

    # ------------------------------------------------------------------ work

    def _copy_in(self, address: int, array: Array, stream: Handle) -> None:
        self._driver.memcpy_htod_async(address, array, stream.content)

    def _copy_out(self, array: Array, address: int, stream: Handle) -> None:
        self._driver.memcpy_dtoh_async(array, address, stream.content)

    def _synchronize_stream(self, stream: Handle) -> None:
        stream.content.synchronize()

    def _stream_wait(self, stream: Handle, event: Handle) -> None:
        stream.content.wait_for_event(event.content)

    def _record_event(self, event: Handle, stream: Handle) -> None:
        event.content.record(stream.content)

    def _event_is_done(self, event: Handle) -> bool:
        return bool(event.content.query())

    def _synchronize_event(self, event: Handle) -> None:
        event.content.synchronize()

    def _elapsed_ms(self, first: Handle, second: Handle) -> float:
        return float(second.content.time_since(first.content))

    def _launch_graph(self, graph: Handle, stream: Handle) -> None:
        self._direct.launch_graph(graph, stream.content.handle)

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
        kernel = module.content.get_function(name)
        kernel(*arguments, grid=grid, block=block, stream=stream.content)


class _DirectCalls:
    """What pycuda lacks, asked of the driver itself; streams are CUstreams."""

    def __init__(self) -> None:
        self._library = load_driver()

    def pop_context(self) -> None:
        self._ask("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def begin_capture(self, stream: int) -> None:
        self._ask("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_THREAD_LOCAL))

    def end_capture(self, stream: int) -> int:
        """Return a CUgraphExec."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._ask("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            self._ask(
                "cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0)
            )
        finally:
            self._ask("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def drop_capture(self, stream: int) -> None:
        """No error of ``cuStreamEndCapture`` counts: where it has one, the capture is over too."""
        graph = ctypes.c_void_p()
        self._library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        if graph.value:
            self._ask("cuGraphDestroy", graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        self._ask("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def free_graph(self, graph: int) -> None:
        self._ask("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def _ask(self, name: str, *arguments: Any) -> None:
        code = int(getattr(self._library, name)(*arguments))
        if code:
            raise DriverRefusal(name, code, error_name(self._library, code))


def _readable_part(error: UnicodeDecodeError) -> str:
    """Which function of the driver failed, and how.

    To a failure of loading kernels pycuda adds the log of the driver's compiler: whatever was in
    that memory before, where the driver failed before it compiled anything.
    """
    return error.object.split(b" - ")[0].decode("ascii", "replace")
