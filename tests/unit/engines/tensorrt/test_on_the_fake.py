"""The engine and its contract over the fake libcuda, driven by pycuda and by cuda.bindings.

There everything is done only when somebody waits for it, as on a GPU: an engine that forgets to
wait gives what it was not asked for. A process has one libcuda for all its life, so each library
runs the suites in one of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from simulators.fake_cuda.building import FakeCuda, build_fake_cuda, why_not
from simulators.tensorrt_rig import DEVICE_VARIABLE

from engines.contract import CudaLibrary
from engines.device.opening import installed_libraries

_HERE = Path(__file__).parent
_ROOT = Path(__file__).parents[4]
_SUITES = (
    ("../test_contract.py", "simulated", 60),
    ("test_engine.py", "", 30),
    ("test_streaming.py", "", 15),
)
"""File, which of its tests, and how many those are at least."""
_DEADLINE_S = 240


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeCuda:
    reason = why_not()
    if reason is not None:
        pytest.skip(f"no fake libcuda: {reason}")
    return build_fake_cuda(tmp_path_factory.mktemp("fake_cuda"))


@pytest.mark.parametrize("library", list(CudaLibrary), ids=lambda each: each.value)
@pytest.mark.parametrize(("file", "words", "least"), _SUITES, ids=[each[0] for each in _SUITES])
def test_each_library_keeps_the_contract(
    fake: FakeCuda, library: CudaLibrary, file: str, words: str, least: int
) -> None:
    if library not in installed_libraries():
        pytest.skip(f"{library.value} is not installed")
    done = subprocess.run(
        [
            *(sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "no:xdist", str((_HERE / file).resolve()), "-k", words),
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
