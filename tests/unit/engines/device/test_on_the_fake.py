"""pycuda and cuda.bindings keep the contract over the fake libcuda."""

from __future__ import annotations

from pathlib import Path

from simulators.fake_cuda.building import FakeCuda
from simulators.fake_cuda.suites import check_suite

from engines.contract import CudaLibrary

_SUITE = (
    "test_device_contract.py",
    "test_device_graphs.py",
    "test_device_endurance.py",
    "test_device_faults.py",
)
_LEAST_TESTS = 100


def test_each_library_keeps_the_contract(fake_cuda: FakeCuda, installed: CudaLibrary) -> None:
    files = [Path(__file__).with_name(name) for name in _SUITE]
    check_suite(fake_cuda, installed, *files, least=_LEAST_TESTS)
