"""For every test: libraries that report home are told not to, before anything imports them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import structlog

# The product sets it itself (engines/onnxruntime_engine.py), which a test shows in a process of
# its own; this is for tests that import onnxruntime directly.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# No test fails because a machine is slow.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def _no_logger_keeps_the_settings_of_a_test() -> Iterator[None]:
    """A logger that is cached, as in the product, would be deaf in the tests that come after."""
    inner = structlog.configure

    def configure(*arguments: Any, **settings: Any) -> None:
        inner(*arguments, **{**settings, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(structlog, "configure", configure)
        yield
