"""What the device's store asks of a package before it is used: every check, apart from us."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_runtime.config.settings import EngineSettings
from edge_runtime.governance.models import Proof, Verify
from engines import errors
from engines.errors import EngineError, ModelEngineError


def verifier(settings: EngineSettings, on_tick: Callable[[], None] = lambda: None) -> Verify:
    """Return the checks as the settings bound them; ``on_tick`` is called while they run."""
    return partial(verify_apart, settings=settings, on_tick=on_tick)


def verify_apart(folder: Path, *, settings: EngineSettings, on_tick: Callable[[], None]) -> Proof:
    """Run all checks of the package in ``folder``, in a process of its own.

    Its numbers are compared on the reference: this says whether the package is good. Whether an
    engine of this device gives the same numbers is for the worker to prove, before it runs.

    Raises:
        PackageError: the package is bad, or what reads it crashed.
        EngineError: this device is not for it: the engine is not installed, does not reproduce the
            golden outputs, or the package asks for more than there is.
    """
    # Only here: processes that look at no pixel have no numpy, and read what is above.
    from edge_runtime.pipeline.answers import CheckName, CheckStatus  # noqa: PLC0415
    from edge_runtime.pipeline.confinement import verify_confined  # noqa: PLC0415
    from engines.contract import Backend  # noqa: PLC0415

    reference = Backend.ONNXRUNTIME
    found = verify_confined(folder, reference, threads=settings.threads, on_tick=on_tick)
    if found.fault is not None:
        raise _kind_of(found.fault.error)(found.fault.found)
    for answer in found.answers:
        if answer.name is CheckName.REQUIREMENTS and answer.status is CheckStatus.WARNING:
            raise EngineError(f"this device is not for it: {answer.found}")
    return Proof(backend=reference.value, largest_deviation=found.deviation or 0.0)


def _kind_of(name: str | None) -> type[ModelEngineError]:
    kind = getattr(errors, name or "", None)
    if isinstance(kind, type) and issubclass(kind, ModelEngineError):
        return kind
    return EngineError
