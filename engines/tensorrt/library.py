"""Which TensorRT is here, and what it can do.

The only module that imports ``tensorrt`` or ``tensorrt_rtx``. Nothing of them is touched before it
is known that this cannot crash: TensorRT's runtime ends the process where there is no GPU, so that
the driver is asked first, and whether it is new enough. TensorRT-RTX builds without one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import cast

from engines.contract import Backend
from engines.device.driver import find_driver
from engines.errors import DeviceError, EngineMisuseError, EngineUnavailableError
from engines.tensorrt.interface import (
    COMPILES_WHEN_RUN,
    FEATURE_NAMES,
    Feature,
    Logger,
    TensorRtModule,
    UsedNames,
    used_names,
)
from engines.tensorrt.messages import MessageRouter, make_logger

__all__ = [
    "TensorRtLibrary",
    "find_features",
    "least_driver",
    "load_library",
    "missing_names",
    "used_names",
    "wrap_module",
]

_MODULES: Mapping[Backend, str] = MappingProxyType(
    {Backend.TENSORRT: "tensorrt", Backend.TENSORRT_RTX: "tensorrt_rtx"}
)
_REMEDIES: Mapping[Backend, str] = MappingProxyType(
    {
        Backend.TENSORRT: "on a Jetson: `apt install python3-libnvinfer` and a virtual environment "
        "with --system-site-packages; elsewhere: `pip install tensorrt` from NVIDIA's index",
        Backend.TENSORRT_RTX: "`pip install tensorrt-rtx`",
    }
)
_DISTRIBUTIONS: Mapping[Backend, str] = MappingProxyType(
    {Backend.TENSORRT: "tensorrt-cu{}", Backend.TENSORRT_RTX: "tensorrt-rtx-cu{}"}
)
"""Wheels say by their names for which CUDA they were built; packages of a Jetson fit its driver."""
_CUDA_MAJORS = (13, 12)
"""Newest first; TensorRT 10.3 and later exist for no older one."""

_LOADING = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtLibrary:
    """A TensorRT whose names were checked.

    Attributes:
        backend: Which of the two.
        module: Through the protocols of ``interface`` only.
        version: What the module says; for people and keys, never compared.
        features: What this one has beyond what all have.
        logger: The process's only one.
        router: Where what the logger hears can be listened to.
    """

    backend: Backend
    module: TensorRtModule
    version: str
    features: frozenset[Feature]
    logger: Logger
    router: MessageRouter


def load_library(backend: Backend) -> TensorRtLibrary:
    """Imports the library of ``backend``; the same one each time.

    Raises:
        EngineUnavailableError: It is not installed, or not whole, or has no GPU to run on.
        EngineMisuseError: ``backend`` is not one of TensorRT's.
    """
    if backend not in _MODULES:
        raise EngineMisuseError(f"{backend.value} is not run by TensorRT")
    if backend is Backend.TENSORRT:
        try:
            find_driver(least_driver(backend))
        except DeviceError as error:
            raise EngineUnavailableError(f"TensorRT needs a GPU and its driver: {error}") from error
    # A process has one logger: two threads must not make one each.
    with _LOADING:
        return _loaded(backend)


def least_driver(backend: Backend) -> int:
    """Returns which driver the installed library needs, as ``find_driver`` counts.

    Releases of one major version of CUDA run on all drivers of that version (minor version
    compatibility), so that the major one decides.
    """
    for major in _CUDA_MAJORS:
        if _is_installed(_DISTRIBUTIONS[backend].format(major)):
            return major * 1000
    return _CUDA_MAJORS[-1] * 1000


def _is_installed(distribution: str) -> bool:
    names = (distribution, f"{distribution}-libs", f"{distribution}-bindings")
    return any(any(importlib.metadata.distributions(name=name)) for name in names)


@cache
def _loaded(backend: Backend) -> TensorRtLibrary:
    return wrap_module(backend, _import(backend))


def wrap_module(backend: Backend, module: TensorRtModule) -> TensorRtLibrary:
    """Checks a module's names, and gives it its logger.

    Raises:
        EngineUnavailableError: It lacks names that we need.
    """
    if missing := missing_names(module, used_names()):
        raise EngineUnavailableError(
            f"{_MODULES[backend]} {module.__version__} lacks {', '.join(missing[:5])}; edge-triage "
            "works with TensorRT 10.3 to 11.4 and with TensorRT-RTX 1.7: install one of them"
        )
    router = MessageRouter()
    return TensorRtLibrary(
        backend=backend,
        module=module,
        version=module.__version__,
        features=find_features(module),
        logger=make_logger(module, router),
        router=router,
    )


def find_features(module: object) -> frozenset[Feature]:
    """Returns what a module has beyond what all have, judged by its names alone."""
    found = {
        feature
        for feature, names in FEATURE_NAMES.items()
        if all(has_name(module, name) for name in names)
    }
    # Where kernels are compiled when they run, nothing is timed while building: the names are
    # there, do nothing and warn.
    if has_name(module, COMPILES_WHEN_RUN):
        found.discard(Feature.TIMING_CACHE)
    return frozenset(found)


def missing_names(module: object, names: UsedNames) -> tuple[str, ...]:
    """Returns the required names that a module lacks."""
    return tuple(name for name in sorted(names.required) if not has_name(module, name))


def has_name(module: object, dotted: str) -> bool:
    """Whether ``Class.member`` is there."""
    place = module
    for part in dotted.split("."):
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True


def _import(backend: Backend) -> TensorRtModule:
    name = _MODULES[backend]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise EngineUnavailableError(
            f"{name} is not installed ({error}); install it: {_REMEDIES[backend]}"
        ) from error
    # What the vendor's packages raise where their libraries are missing differs by version.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise EngineUnavailableError(
            f"{name} is installed, but its libraries do not load ({error}); install them again: "
            f"{_REMEDIES[backend]}"
        ) from error
    return cast("TensorRtModule", module)
