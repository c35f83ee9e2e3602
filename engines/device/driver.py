"""Whether a CUDA driver is here that serves, asked before any library that would crash without one.

TensorRT ends the process where the driver is missing (its ``Runtime`` returns an object that must
not be used), so ``find_driver`` comes first. It needs ``ctypes`` and nothing of NVIDIA's.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from engines.errors import DeviceError, DeviceUnavailableError, OutOfDeviceMemoryError

LIBRARY = "libcuda.so.1"
"""The name by which every driver since CUDA 4 is loaded, on boards too."""

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: no order with the stream that belongs to everybody."""

_OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY."""

_ELSEWHERE = "or let another back end run in [engine] of the settings"
_REMEDIES = {
    3: "the process was forked from one that used the GPU: start it anew",
    34: "this is the stub of a CUDA toolkit: install the driver, and take `stubs` out of the path",
    46: "the GPU is in use by a process that lets no other one in: see `nvidia-smi -q -d COMPUTE`",
    100: "check that the GPU is seen (`nvidia-smi`, or `tegrastats` on a Jetson), that "
    "CUDA_VISIBLE_DEVICES does not hide it, and that the container was started with it",
    802: "the system is still starting the GPU: wait (`systemctl status nvidia-fabricmanager`)",
    803: "driver and its library are of different versions: restart the device after the update",
    804: "the compatibility library does not serve this GPU: take it out of LD_LIBRARY_PATH",
}
"""By CUresult of cuInit."""


class DriverRefusal(Exception):  # noqa: N818 - a device translates it: no caller sees it
    """A function of the driver returned something else than success."""

    def __init__(self, function: str, code: int, name: str) -> None:
        super().__init__(f"{function}: {name}")
        self.code = code

    @property
    def is_out_of_memory(self) -> bool:
        """Whether it was for want of memory."""
        return self.code == _OUT_OF_MEMORY


def device_error(error: Exception, doing: str, *, is_out_of_memory: bool = False) -> DeviceError:
    """What a library of the driver raised, as one of ours.

    Args:
        error: A ``DriverRefusal``, or of the library.
        doing: What failed.
        is_out_of_memory: By the library's own word.
    """
    if isinstance(error, DriverRefusal):
        text = f"{doing} failed ({error})"
        is_out_of_memory = error.is_out_of_memory
    else:
        text = f"{doing} failed ({type(error).__name__}: {error})"
    if is_out_of_memory:
        return OutOfDeviceMemoryError(f"{text}; stop what else uses the GPU's memory")
    return DeviceError(f"{text}; see `dmesg` and run `edge-triage doctor`")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverState:
    """A driver that can be used."""

    version: int
    """1000 * major + 10 * minor of the newest CUDA that it serves."""
    devices: int
    """How many GPUs it shows, at least 1."""


def find_driver(least_version: int = 0) -> DriverState:
    """Look for a driver with a device; nothing of either is taken.

    Args:
        least_version: As ``DriverState.version`` counts.

    Raises:
        DeviceUnavailableError: There is no driver, or none that serves; the text has the remedy.
    """
    library = load_driver()
    try:
        version = _asked(library.cuDriverGetVersion)
        started = int(library.cuInit(0))
        if not started:
            devices = _asked(library.cuDeviceGetCount)
    except AttributeError as error:
        raise DeviceUnavailableError(
            f"{LIBRARY} is no CUDA driver ({error}): install the GPU's driver again, {_ELSEWHERE}"
        ) from error
    # Before what cuInit says: it fails for this reason too, with any code.
    if version < least_version:
        raise DeviceUnavailableError(
            f"the GPU's driver serves CUDA {version_text(version)}, and "
            f"{version_text(least_version)} is needed: update the driver, {_ELSEWHERE}"
        )
    if started:
        remedy = _REMEDIES.get(started, "see `dmesg` and `nvidia-smi` for what the driver says")
        raise DeviceUnavailableError(
            f"the GPU's driver does not start (cuInit: {error_name(library, started)}): {remedy}, "
            f"{_ELSEWHERE}"
        )
    if devices < 1:
        raise DeviceUnavailableError(
            f"the GPU's driver shows no device: {_REMEDIES[100]}, {_ELSEWHERE}"
        )
    return DriverState(version=version, devices=devices)


def load_driver() -> ctypes.CDLL:
    """Load the driver's library, or find it where the process has it.

    Raises:
        DeviceUnavailableError: There is none, or it cannot be loaded.
    """
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DeviceUnavailableError(
            f"no CUDA driver can be loaded here ({error}): install the GPU's driver (a Jetson has "
            f"it of JetPack, a container of the NVIDIA runtime), {_ELSEWHERE}"
        ) from error


def version_text(version: int) -> str:
    """13000 as 13.0."""
    return f"{version // 1000}.{version % 1000 // 10}"


def error_name(library: ctypes.CDLL, code: int) -> str:
    """CUDA_ERROR_NO_DEVICE, or the bare number where the driver has no name for it."""
    name = ctypes.c_char_p()
    asked = getattr(library, "cuGetErrorName", None)
    if asked is None or asked(ctypes.c_int(code), ctypes.byref(name)) or name.value is None:
        return str(code)
    return name.value.decode("ascii", "replace")


def _asked(function: ctypes._NamedFuncPointer) -> int:
    """Of a function that answers by one int; 0 where it refuses."""
    value = ctypes.c_int(0)
    return 0 if function(ctypes.byref(value)) else value.value
