"""The tests of staging again, with real pycuda and real cuda.bindings on the fake libcuda."""

from __future__ import annotations

from pathlib import Path

from simulators.fake_cuda.building import FakeCuda
from simulators.fake_cuda.suites import check_suite

from engines.contract import CudaLibrary

_LEAST_TESTS = 15


def test_staging_keeps_its_word_on_a_driver(
    fake_cuda: FakeCuda, installed: CudaLibrary, host_image: bytes
) -> None:
    assert host_image  # there is a compiler
    suite = Path(__file__).with_name("test_staging.py")
    check_suite(fake_cuda, installed, suite, least=_LEAST_TESTS)
