"""Which engines this machine has, found out by asking each one as it would be used.

What a library says of itself is not enough: ONNX Runtime lists the providers that it was built
with, whether or not the machine has a GPU for them. A plan is not built here, which takes minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import AcceleratorOptions, Backend, EngineOptions
from engines.device.opening import open_device
from engines.errors import EngineError, EngineUnavailableError

PLAN_BACKENDS = (Backend.TENSORRT, Backend.TENSORRT_RTX)
"""Run plans that this device builds from a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What came of asking one engine."""

    backend: Backend
    version: str = ""
    """Of the library; empty where it is not available."""
    runs_on: str = ""
    """The part of the library that computes, or the GPU."""
    obstacle: str = ""
    """Why it is not available, and what to do; empty where it is."""


def find_available(model: VerifiedFile, options: EngineOptions) -> tuple[Availability, ...]:
    """Asks every engine.

    Args:
        model: That ONNX Runtime loads to prove itself.
        options: How engines may use the machine.
    """
    return tuple(_ask(backend, model, options) for backend in Backend)


def _ask(backend: Backend, model: VerifiedFile, options: EngineOptions) -> Availability:
    try:
        if backend in PLAN_BACKENDS:
            return _ask_tensorrt(backend, options.accelerator)
        with open_engine(backend, model, options) as engine:
            found = engine.metadata
            return Availability(backend=backend, version=found.version, runs_on=found.provider)
    except EngineError as error:
        return Availability(backend=backend, obstacle=str(error))


def _ask_tensorrt(backend: Backend, accelerator: AcceleratorOptions | None) -> Availability:
    # Only here: whoever has no TensorRT need not read its adapter.
    from engines.tensorrt.library import least_driver, load_library  # noqa: PLC0415 - see above

    if accelerator is None:
        raise EngineUnavailableError("no GPU may be used: the options name none")
    device = open_device(
        accelerator.libraries, accelerator.device_index, least_version=least_driver(backend)
    )
    library = load_library(backend)
    with device:
        return Availability(backend=backend, version=library.version, runs_on=device.info.name)
