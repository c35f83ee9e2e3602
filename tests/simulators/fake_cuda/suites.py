"""Runs tests again on the fake libcuda: a process has one libcuda for all its life."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from engines.contract import CudaLibrary
from simulators.fake_cuda.building import FakeCuda

DEVICE_VARIABLE = "EDGE_TRIAGE_TEST_DEVICE"
"""``host``, ``pycuda`` or ``cuda-bindings``; these two take the libcuda that the process finds."""
HOST = "host"
_DEADLINE_S = 240
_ROOT = Path(__file__).parents[3]


def check_suite(
    fake: FakeCuda, library: CudaLibrary, *files: Path, least: int, words: str = ""
) -> None:
    """Let tests pass in a process of their own, by one of the libraries; none may be skipped.

    Args:
        fake: The libcuda.
        library: Which talks to it.
        files: Modules of tests.
        least: So many pass at least.
        words: Of their names, as ``pytest -k`` has it; empty for all.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "no:xdist", "-p", "no:randomly", *map(str, files), "-k", words),
        ],
        env={**fake.environment(), DEVICE_VARIABLE: library.value},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"rc {done.returncode}\n{done.stdout}\n{done.stderr}"
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= least, done.stdout
    assert "skipped" not in done.stdout, done.stdout
