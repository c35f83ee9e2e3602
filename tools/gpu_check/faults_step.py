"""A kernel that fails: the error is told, the device is left, and the process goes on.

After such a failure the driver refuses everything of this process, so that the step comes after all
others and has a process of its own, as all have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.contract import CudaLibrary
from engines.device.contract import Device
from engines.device.opening import open_device
from engines.errors import DeviceError, DeviceUnavailableError, KernelBuildError
from engines.kernel.compiling import Target, compile_kernels
from engines.kernel.staging import THREADS
from tools.gpu_check.rows import RowFile

_NOWHERE = np.uint64(0)


def check(rows: RowFile, _folder: Path) -> None:
    """Let a kernel read from nowhere.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    device = open_device(tuple(CudaLibrary))
    told = ""
    try:
        with device:
            told = fail(rows, device)
    except DeviceUnavailableError:
        raise
    except DeviceError as error:
        # Nothing can be freed any more; the first failure is the cause, and is what comes out.
        rows.add("GPU", "leaving says", str(error))
    if told:
        rows.check("GPU", "the process goes on", holds=True)


def fail(rows: RowFile, device: Device) -> str:
    """Launch on an address that is none; return what was told."""
    try:
        kernels = compile_kernels(Target.of(device.info))
    except KernelBuildError as error:
        rows.not_here("kernel", str(error))
        return ""
    module, stream = device.load_module(kernels), device.stream()
    told = ""
    try:
        module.launch(
            "edge_triage_place",
            stream,
            grid=(1, 1, 1),
            block=(THREADS, 1, 1),
            arguments=(_NOWHERE,),
        )
        stream.synchronize()
    except DeviceError as error:
        told = str(error)
    rows.check("GPU", "reading from nowhere is told", bool(told), told)
    return told
