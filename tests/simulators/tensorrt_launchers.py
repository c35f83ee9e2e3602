"""How the stand-in for TensorRT adds its work to the streams of a device."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable

from engines.device.contract import MemoryState
from engines.device.host import HostDevice, _HostMemory

_LAUNCH_FAILED = 719
_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class RoomyHost(HostDevice):
    """The host with as much memory as a test says, whatever else runs on this machine."""

    def __init__(self, launcher: HostLauncher, total_bytes: int) -> None:
        super().__init__(total_bytes=total_bytes)
        # As with a driver, no stream of a process is called like another one.
        self._pointers = launcher.pointers
        launcher.devices.append(self)
        self._launcher = launcher

    def _take(self, nbytes: int) -> _HostMemory:
        left = self._launcher.takes_before_refusal
        if left is not None:
            if left == 0:
                raise MemoryError("as much as the test allows")
            self._launcher.takes_before_refusal = left - 1
        return super()._take(nbytes)

    def _memory(self) -> MemoryState:
        total = super()._memory().total_bytes
        return MemoryState(free_bytes=total - self._used_bytes, total_bytes=total)

    @property
    def used_bytes(self) -> int:
        return self._used_bytes


class HostLauncher:
    """On ``RoomyHost``s: at once, or at every launch of the graph that is captured."""

    def __init__(self) -> None:
        self.pointers = itertools.count(1)
        self.devices: list[RoomyHost] = []
        self.takes_before_refusal: int | None = None
        """So many pieces of memory are given; every later one is refused."""

    def _device(self, stream: int) -> RoomyHost:
        return next(each for each in self.devices if stream in each._streams)

    def is_capturing(self, stream: int) -> bool:
        return self._device(stream)._streams[stream].capture is not None

    def launch(self, stream: int, work: Callable[[], None]) -> bool:
        try:
            self._device(stream).call(stream, work)
        except Exception:  # noqa: BLE001 - ONNX Runtime's exceptions share no base
            return False
        return True


class DriverLauncher:
    """On the fake libcuda of this process: when somebody waits for the stream, as on a GPU."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._kept: list[_Launched] = []

    def is_capturing(self, stream: int) -> bool:
        status = ctypes.c_int()
        code = self._driver.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
        assert code == 0
        return status.value != 0

    def launch(self, stream: int, work: Callable[[], None]) -> bool:
        self._kept = [each for each in self._kept if not each.is_done]
        launched = _Launched(self._driver, work, may_come_again=self.is_capturing(stream))
        self._kept.append(launched)
        code = self._driver.cuLaunchHostFunc(ctypes.c_void_p(stream), launched.function, None)
        return int(code) == 0


class _Launched:
    """What a driver calls; it must live as long as it may be called."""

    def __init__(
        self, driver: ctypes.CDLL, work: Callable[[], None], *, may_come_again: bool
    ) -> None:
        self.is_done = False

        def call(_: int | None) -> None:
            try:
                work()
            except Exception:  # noqa: BLE001 - ONNX Runtime's exceptions share no base
                driver.fake_break_context(_LAUNCH_FAILED)
            self.is_done = not may_come_again

        self.function = _HostFunction(call)
