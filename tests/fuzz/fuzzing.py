"""What every fuzz target needs of atheris; where there is none, a target can still be imported."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import structlog


class Target(Protocol):
    """Raises for an input that breaks the invariant."""

    def __call__(self, given: bytes) -> None: ...

    def close(self) -> None: ...


def has_atheris() -> bool:
    """Whether atheris is installed; it has no wheels for every Python."""
    return importlib.util.find_spec("atheris") is not None


@contextlib.contextmanager
def instrumented() -> Iterator[None]:
    """Imports within are measured, if this process is a fuzzer."""
    if not _is_fuzzer():
        yield
        return
    with _atheris().instrument_imports(include=["dicom_node", "pynetdicom"]):
        yield


def _atheris() -> Any:
    return importlib.import_module("atheris")


def _is_fuzzer() -> bool:
    main = sys.modules["__main__"]
    return getattr(main, "__file__", "").rpartition("/")[2].startswith("fuzz_") and has_atheris()


def fuzz(target: Target) -> None:
    """Run the fuzzer with the command line's arguments until it has done what they say."""
    if not has_atheris():
        raise SystemExit("atheris is not installed for this Python: pip install atheris")
    atheris = _atheris()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
