"""For every test: libraries that report home are told not to, before anything imports them."""

from __future__ import annotations

import os

import hypothesis

# The product sets it itself (engines/onnxruntime_engine.py), which a test shows in a process of
# its own; this is for tests that import onnxruntime directly.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# No test fails because a machine is slow.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
