"""The tests of staging again, with real pycuda and real cuda.bindings on the fake libcuda."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from simulators.fake_cuda.building import FakeCuda, build_fake_cuda, why_not

from engines.contract import CudaLibrary

CHECKOUT = Path(__file__).parents[4]
HERE = Path(__file__).parent
MODULES = {CudaLibrary.PYCUDA: "pycuda", CudaLibrary.CUDA_BINDINGS: "cuda.bindings"}


@pytest.fixture(scope="module")
def fake_cuda(host_image: bytes, tmp_path_factory: pytest.TempPathFactory) -> FakeCuda:
    assert host_image  # there is a compiler
    missing = why_not()
    if missing is not None:
        pytest.skip(missing)
    return build_fake_cuda(tmp_path_factory.mktemp("fake"))


def is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("library", list(CudaLibrary))
def test_staging_keeps_its_word_on_a_driver(fake_cuda: FakeCuda, library: CudaLibrary) -> None:
    if not is_installed(MODULES[library]):
        pytest.skip(f"{MODULES[library]} is not installed")
    environment = {**fake_cuda.environment(), "EDGE_TRIAGE_TEST_DEVICE": library.value}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "test_staging.py"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
