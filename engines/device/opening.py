"""Which device is opened: the driver is asked first, then the first library that can be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

from engines.contract import CudaLibrary
from engines.device.contract import Device
from engines.device.cuda_bindings_device import CudaBindingsDevice
from engines.device.driver import find_driver
from engines.device.pycuda_device import PyCudaDevice
from engines.errors import DeviceUnavailableError

_OPENING: Mapping[CudaLibrary, Callable[[int], Device]] = {
    CudaLibrary.PYCUDA: PyCudaDevice,
    CudaLibrary.CUDA_BINDINGS: CudaBindingsDevice,
}
_MODULES = {CudaLibrary.PYCUDA: "pycuda", CudaLibrary.CUDA_BINDINGS: "cuda.bindings"}


def open_device(
    libraries: Sequence[CudaLibrary], index: int = 0, *, least_version: int = 0
) -> Device:
    """Choose a library for one GPU; the device is not entered yet.

    Args:
        libraries: In order of preference.
        index: Of the GPU, as the driver counts.
        least_version: Of the driver, as ``find_driver`` takes it.

    Raises:
        DeviceUnavailableError: There is no driver, no such GPU, or none of the libraries can be
            used; the text has every reason.
    """
    if not libraries:
        raise DeviceUnavailableError("no library is allowed to talk to the GPU: name one")
    state = find_driver(least_version)
    if not 0 <= index < state.devices:
        raise DeviceUnavailableError(
            f"there is no GPU {index}: the driver shows {state.devices}, counted from 0"
        )
    reasons: list[str] = []
    for library in libraries:
        device = _opened(library, index, reasons)
        if device is not None:
            return device
    raise DeviceUnavailableError("; ".join(reasons))


def installed_libraries() -> tuple[CudaLibrary, ...]:
    """Which libraries are installed; none is imported, so whether they work is not said."""
    return tuple(library for library in CudaLibrary if _is_installed(_MODULES[library]))


def _opened(library: CudaLibrary, index: int, reasons: list[str]) -> Device | None:
    try:
        return _OPENING[library](index)
    except DeviceUnavailableError as error:
        reasons.append(str(error))
        return None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that the module would lie in
        return False
