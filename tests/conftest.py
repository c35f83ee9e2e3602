"""For every test: libraries that report home are told not to, before anything imports them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

import hypothesis
import pytest
import structlog

# The product sets it itself (engines/onnxruntime_engine.py), which a test shows in a process of
# its own; this is for tests that import onnxruntime directly.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# No test fails because a machine is slow.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


class _PresentOutput:
    """What is standard output at the moment of a line.

    The threads of a test go on logging while pytest puts another file there and closes the one
    before. ``print``, in Python 3.11 at least, keeps no reference to it meanwhile, and would crash.
    """

    def write(self, text: str) -> None:
        """Write to it, unless it has just been closed."""
        with contextlib.suppress(ValueError):
            sys.stdout.write(text)

    def flush(self) -> None:
        """Flush it, unless it has just been closed."""
        with contextlib.suppress(ValueError):
            sys.stdout.flush()


@pytest.fixture(autouse=True, scope="session")
def _no_logger_keeps_the_settings_of_a_test() -> Iterator[None]:
    """A logger that is cached, as in the product, would be deaf in the tests that come after."""
    inner = structlog.configure

    def configure(*arguments: Any, **settings: Any) -> None:
        inner(*arguments, **{**settings, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(structlog, "configure", configure)
        output = cast("TextIO", _PresentOutput())
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(output))
        yield
