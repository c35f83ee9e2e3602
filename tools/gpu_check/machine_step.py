"""Which GPU, driver and libraries: what every figure of the other steps rests on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from engines.contract import Backend, CudaLibrary
from engines.device.driver import find_driver, version_text
from engines.device.opening import open_device
from engines.errors import DeviceError, EngineError
from engines.tensorrt.library import load_library
from tools.gpu_check.rows import RowFile

_DISTRIBUTIONS = (
    *("edge-triage", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "triton"),
    *("pycuda", "cuda-bindings", "tensorrt", "tensorrt-rtx"),
)
_QUERY_S = 30.0


def check(rows: RowFile, _folder: Path) -> None:
    """Describe the machine.

    Raises:
        DeviceUnavailableError: There is no usable GPU; all that can be said without stands already.
    """
    rows.add("machine", "processor", f"{_processor()}, {len(os.sched_getaffinity(0))} cores")
    rows.add("machine", "system", f"{platform.system()} {platform.release()}")
    rows.add("machine", "Python", platform.python_version())
    for name in _DISTRIBUTIONS:
        _describe_distribution(rows, name)
    _describe_compiler(rows)
    for backend in (Backend.TENSORRT, Backend.TENSORRT_RTX):
        _describe_library(rows, backend)
    state = find_driver()
    rows.add("driver", "serves CUDA", version_text(state.version), is_key=True)
    rows.add("driver", "devices", str(state.devices))
    _describe_gpu(rows)


def _describe_library(rows: RowFile, backend: Backend) -> None:
    try:
        library = load_library(backend)
    except EngineError as error:
        rows.not_here(backend.value, str(error))
        return
    features = ", ".join(sorted(each.value for each in library.features))
    rows.add(backend.value, f"version {library.version}", features)


def _describe_gpu(rows: RowFile) -> None:
    for library in CudaLibrary:
        try:
            with open_device([library]) as device:
                info, memory = device.info, device.memory()
        except DeviceError as error:
            rows.not_here(library.value, str(error))
            continue
        capability = ".".join(map(str, info.compute_capability))
        gigabytes = f"{memory.free_bytes / 1e9:.1f} of {memory.total_bytes / 1e9:.1f} GB free"
        shares = ", shares the processor's memory" if info.is_integrated else ""
        rows.add(
            library.value,
            f"version {info.library_version}",
            f"{info.name}, capability {capability}, {gigabytes}{shares}",
            is_key=True,
        )
    _describe_clocks(rows)


def _describe_clocks(rows: RowFile) -> None:
    """What limits the speed while nothing runs: read only, nothing is set."""
    fields = "driver_version,power.limit,clocks.max.sm,clocks.max.mem,temperature.gpu"
    told = _printed("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    if told is not None:
        rows.add("nvidia-smi", fields.replace(",", ", "), told)
        return
    mode = _printed("nvpmodel", "-q")
    if mode is not None:
        rows.add("nvpmodel", "power mode", mode.replace("\n", ", "))
    else:
        rows.not_here("clocks", "neither nvidia-smi nor nvpmodel answers")


def _describe_distribution(rows: RowFile, name: str) -> None:
    try:
        rows.add("python", name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        rows.not_here(name, "not installed")


def _describe_compiler(rows: RowFile) -> None:
    told = _printed("nvcc", "--version")
    if told is None:
        rows.not_here("nvcc", "not on the PATH")
    else:
        rows.add("nvcc", "version", told.splitlines()[-1])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _printed(command: str, *arguments: str) -> str | None:
    """What a program prints; None where it is absent or fails."""
    if shutil.which(command) is None:
        return None
    done = subprocess.run(
        [command, *arguments], capture_output=True, check=False, text=True, timeout=_QUERY_S
    )
    return done.stdout.strip() or None if done.returncode == 0 else None
