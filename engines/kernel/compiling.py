"""The kernels' sources become code: by NVRTC or nvcc for a GPU, by a C++ compiler for the host.

What was compiled is kept among the plans, sealed as they are: code from elsewhere is never loaded.
Its key is the sources, the flags, the device's architecture and the driver's version.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from engines.device.contract import DeviceInfo
from engines.errors import KernelBuildError
from engines.plans.sealed import SealedKind
from engines.plans.sealed_folder import SealedFolder

HOST = (0, 0)
"""The compute capability of a device that is the host."""

DEVICE_SOURCE, HOST_SOURCE = "device.cu", "host.cpp"
HEADERS = ("arithmetic.h", "layout.h")

# No product and sum in one rounding: the device's results are the host's.
DEVICE_FLAGS = ("-std=c++17", "--fmad=false")
HOST_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared")

_NVRTC = "cuda.bindings.nvrtc"
_TIMEOUT_S = 300.0
"""Two cores that are busy with something else need some seconds."""
_LOG_CHARACTERS = 2000
_STANDARD_CUDA = Path("/usr/local/cuda")
"""Where NVIDIA's packages put it, on JetPack too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """For what the kernels are compiled."""

    architecture: str
    """``sm_87`` for compute capability 8.7; the machine's name for the host."""
    is_host: bool
    driver_version: int = 0
    """What it loads depends on it."""

    @classmethod
    def of(cls, info: DeviceInfo) -> Target:
        """Return the target that a device is."""
        if info.compute_capability == HOST:
            return cls(architecture=platform.machine(), is_host=True)
        major, minor = info.compute_capability
        return cls(
            architecture=f"sm_{major}{minor}", is_host=False, driver_version=info.driver_version
        )

    def key(self) -> bytes:
        """Under which the compiled kernels are kept."""
        members = {
            "kernels": sources_digest(),
            "architecture": self.architecture,
            "driver_version": self.driver_version,
            "flags": HOST_FLAGS if self.is_host else DEVICE_FLAGS,
        }
        return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")


def sources() -> dict[str, str]:
    """Return the sources by their names."""
    folder = files("engines.kernel") / "sources"
    names = (*HEADERS, DEVICE_SOURCE, HOST_SOURCE)
    return {name: (folder / name).read_text(encoding="ascii") for name in names}


def sources_digest() -> str:
    """Return the SHA-256 of all sources."""
    digest = hashlib.sha256()
    for name, text in sorted(sources().items()):
        digest.update(f"{name} {len(text)}\n{text}".encode("ascii"))
    return digest.hexdigest()


def compiled_kernels(info: DeviceInfo, kept: SealedFolder) -> bytes:
    """Return the kernels for a device, compiled unless this device has kept them.

    Args:
        info: Of the device.
        kept: Where plans are kept.

    Raises:
        KernelBuildError: There is no compiler here, or none that knows this device.
        PlanStoreError: The folder cannot be used.
    """
    target = Target.of(info)
    found = kept.find(SealedKind.KERNEL, target.key())
    if found is not None:
        return found.content
    image = compile_kernels(target)
    kept.keep(SealedKind.KERNEL, target.key(), image)
    return image


def compile_kernels(target: Target) -> bytes:
    """Compile the kernels with the first compiler that can.

    Raises:
        KernelBuildError: None can; it says why not.
    """
    if target.is_host:
        return compile_for_host()
    try:
        return compile_by_nvrtc(target.architecture)
    except KernelBuildError as error:
        by_nvrtc = error
    try:
        return compile_by_nvcc(target.architecture)
    except KernelBuildError as by_nvcc:
        raise KernelBuildError(
            f"the kernels cannot be compiled for {target.architecture}: {by_nvrtc}; {by_nvcc}. "
            "Install NVRTC (nvidia-cuda-nvrtc, with cuda-bindings) or nvcc for this device; "
            "without them images are prepared by the processor"
        ) from by_nvcc


def compile_for_host() -> bytes:
    """Compile a shared object for this machine.

    Raises:
        KernelBuildError: There is no C++ compiler, or it failed.
    """
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise KernelBuildError("there is no C++ compiler here: install g++")
    return _run_compiler([compiler, *HOST_FLAGS], HOST_SOURCE)


def compile_by_nvcc(architecture: str) -> bytes:
    """Compile a cubin with nvcc.

    Raises:
        KernelBuildError: There is no nvcc, or it failed.
    """
    compiler = find_nvcc(os.environ)
    if compiler is None:
        raise KernelBuildError("there is no nvcc on the PATH or in /usr/local/cuda")
    command = [str(compiler), *DEVICE_FLAGS, f"-arch={architecture}", "-cubin"]
    return _run_compiler(command, DEVICE_SOURCE)


def find_nvcc(environment: Mapping[str, str]) -> Path | None:
    """Return the nvcc of ``CUDA_HOME``, of NVIDIA's own folder, or of the PATH."""
    homes = [Path(environment[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in environment]
    for home in (*homes, _STANDARD_CUDA):
        if os.access(home / "bin" / "nvcc", os.X_OK):
            return home / "bin" / "nvcc"
    found = shutil.which("nvcc", path=environment.get("PATH"))
    return None if found is None else Path(found)


def compile_by_nvrtc(architecture: str) -> bytes:
    """Compile a cubin with NVRTC, through cuda-bindings.

    Raises:
        KernelBuildError: One of them is missing, or the compiler failed.
    """
    try:
        nvrtc = importlib.import_module(_NVRTC)
        return _by_nvrtc(nvrtc, architecture)
    except KernelBuildError:
        raise
    # cuda-bindings finds NVRTC at its first call; what it raises then shares no base class.
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        raise KernelBuildError(f"no NVRTC ({type(error).__name__}: {text})") from error


def _by_nvrtc(nvrtc: Any, architecture: str) -> bytes:
    texts = {name: text.encode("ascii") for name, text in sources().items()}
    result, program = nvrtc.nvrtcCreateProgram(
        texts[DEVICE_SOURCE],
        DEVICE_SOURCE.encode("ascii"),
        len(HEADERS),
        [texts[name] for name in HEADERS],
        [name.encode("ascii") for name in HEADERS],
    )
    _check(nvrtc, result, "creating a program")
    try:
        flags = [flag.encode("ascii") for flag in (*DEVICE_FLAGS, f"-arch={architecture}")]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise KernelBuildError(f"NVRTC refused: {_nvrtc_log(nvrtc, program)}")
        result, size = nvrtc.nvrtcGetCUBINSize(program)
        _check(nvrtc, result, "asking for the cubin")
        image = bytearray(size)
        (result,) = nvrtc.nvrtcGetCUBIN(program, image)
        _check(nvrtc, result, "reading the cubin")
        return bytes(image)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _check(nvrtc: Any, result: Any, doing: str) -> None:
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise KernelBuildError(f"NVRTC failed while {doing}: {result}")


def _nvrtc_log(nvrtc: Any, program: Any) -> str:
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    return log.rstrip(b"\0").decode("utf-8", "replace").strip()[:_LOG_CHARACTERS]


def _run_compiler(command: Sequence[str], source: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="edge-triage-kernels-") as name:
        folder = Path(name)
        for each, text in sources().items():
            (folder / each).write_text(text, encoding="ascii")
        try:
            done = subprocess.run(
                [*command, "-o", "kernels", source],
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelBuildError(f"{command[0]} did not come to an end ({error})") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[:_LOG_CHARACTERS]
            raise KernelBuildError(f"{command[0]} refused: {said}")
        return (folder / "kernels").read_bytes()
