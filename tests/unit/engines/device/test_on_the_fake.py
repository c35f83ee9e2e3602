"""pycuda and cuda.bindings keep the contract over the fake libcuda.

A process has one libcuda for all its life, so each library runs the suite in one of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from simulators.fake_cuda.building import FakeCuda

from engines.contract import CudaLibrary

_SUITE = (
    "test_device_contract.py",
    "test_device_graphs.py",
    "test_device_endurance.py",
    "test_device_faults.py",
)
_LEAST_TESTS = 100
_DEADLINE_S = 240
_ROOT = Path(__file__).parents[4]


def test_each_library_keeps_the_contract(fake_cuda: FakeCuda, installed: CudaLibrary) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "no:xdist", "-p", "no:randomly"),
            *(str(Path(__file__).with_name(name)) for name in _SUITE),
        ],
        env={**fake_cuda.environment(), "EDGE_TRIAGE_TEST_DEVICE": installed.value},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"rc {done.returncode}\n{done.stdout}\n{done.stderr}"
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= _LEAST_TESTS, done.stdout
    assert "skipped" not in done.stdout, done.stdout
    assert os.environ.get("EDGE_TRIAGE_TEST_DEVICE") != installed.value
