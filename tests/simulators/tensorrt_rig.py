"""Engines on the stand-in for TensorRT: on the host, or on the fake libcuda of this process."""

from __future__ import annotations

import dataclasses
import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from engines.checksums import VerifiedFile
from engines.contract import AcceleratorOptions, Backend, CudaLibrary, EngineOptions
from engines.device.contract import Device, Kind
from engines.device.opening import open_device
from engines.errors import OutOfDeviceMemoryError
from engines.tensorrt.engine import TensorRtEngine
from engines.tensorrt.library import TensorRtLibrary, wrap_module
from simulators.fake_cuda.control import CudaCode, loaded_fake
from simulators.fake_cuda.suites import DEVICE_VARIABLE, HOST
from simulators.tensorrt_building import simulated_tensorrt
from simulators.tensorrt_launchers import DriverLauncher, HostLauncher, RoomyHost
from simulators.tensorrt_runtime import Faults

_HOST_BYTES = 8 << 30
_DEVICE_BYTES = 64 << 20
_MOST_ALLOCATIONS = 64
"""Of one engine."""


class TensorRtRig:
    """A process that has TensorRT and a device."""

    def __init__(
        self,
        folder: Path,
        backend: Backend = Backend.TENSORRT,
        *,
        host_bytes: int = _HOST_BYTES,
    ) -> None:
        self.device_name = os.environ.get(DEVICE_VARIABLE, HOST)
        self.backend = backend
        self.faults = Faults()
        self.folder = folder
        self.devices: list[Device] = []
        self._host_bytes = host_bytes
        self._host = HostLauncher()
        self._fake = None if self.is_host else loaded_fake()
        launcher = self._host if self.is_host else DriverLauncher()
        module, self.world = simulated_tensorrt(launcher, self.faults, backend)
        self.library: TensorRtLibrary = wrap_module(backend, module)

    @property
    def is_host(self) -> bool:
        return self.device_name == HOST

    def options(self, **changes: Any) -> AcceleratorOptions:
        chosen = AcceleratorOptions(folder=self.folder, most_items=8, memory_bytes=_DEVICE_BYTES)
        return dataclasses.replace(chosen, **changes)

    def open(
        self, model: VerifiedFile, options: EngineOptions | None = None, **changes: Any
    ) -> TensorRtEngine:
        """Return an engine that is not entered, as ``open_engine`` does."""
        options = dataclasses.replace(
            options or EngineOptions(), accelerator=self.options(**changes)
        )
        return TensorRtEngine(
            model,
            options,
            self.backend,
            find_library=lambda _: self.library,
            find_device=self._find_device,
        )

    def _find_device(
        self, libraries: tuple[CudaLibrary, ...], index: int, /, *, least_version: int
    ) -> Device:
        if self.is_host:
            device: Device = RoomyHost(self._host, self._host_bytes)
        else:
            assert libraries
            chosen = [CudaLibrary(self.device_name)]
            device = open_device(chosen, index, least_version=least_version)
        self.devices.append(device)
        return device

    def refuse_memory(self, *, after: int) -> None:
        """Let one allocation fail after so many that went well: on the device, or pinned."""
        self._host.takes_before_refusal = after
        if self._fake is not None:
            # pycuda collects garbage and asks again.
            for _ in range(2 if self.device_name == CudaLibrary.PYCUDA.value else 1):
                self._fake.fail("cuMemAlloc_v2", CudaCode.OUT_OF_MEMORY, after=after)

    def give_memory(self) -> None:
        """No allocation fails any more."""
        self._host.takes_before_refusal = None
        if self._fake is not None:
            with open_device([CudaLibrary(self.device_name)]) as device:
                for _ in range(_MOST_ALLOCATIONS):
                    with suppress(OutOfDeviceMemoryError):
                        device.allocate(1).free()

    def leftovers(self) -> dict[str, int]:
        """What engines that are left still hold of library and device; it shall be nothing."""
        gc.collect()
        found = {kind: count for kind, count in self.world.alive.items() if count}
        for device in self.devices:
            for resource in device._open:
                kind = Kind(resource.kind).value
                found[kind] = found.get(kind, 0) + 1
            if isinstance(device, RoomyHost) and device.used_bytes:
                found["bytes"] = found.get("bytes", 0) + device.used_bytes
        if self._fake is not None:
            found |= {f"driver's {kind}": count for kind, count in self._fake.live().items()}
            found |= {"abandoned": self._fake.abandoned} if self._fake.abandoned else {}
            assert self._fake.violations is None
        assert self.world.violations == []
        return found
