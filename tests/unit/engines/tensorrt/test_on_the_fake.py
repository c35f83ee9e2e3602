"""The engine and its contract over the fake libcuda, driven by pycuda and by cuda.bindings.

There everything is done only when somebody waits for it, as on a GPU: an engine that forgets to
wait gives what it was not asked for.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from simulators.fake_cuda.building import FakeCuda
from simulators.fake_cuda.suites import check_suite

from engines.contract import CudaLibrary

_SUITES = (
    ("../test_contract.py", "simulated", 60),
    ("test_engine.py", "", 30),
    ("test_runtime_cache.py", "", 20),
    ("test_streaming.py", "", 15),
)
"""File, which of its tests, and how many those are at least."""


@pytest.mark.parametrize(("file", "words", "least"), _SUITES, ids=[each[0] for each in _SUITES])
def test_each_library_keeps_the_contract(
    fake_cuda: FakeCuda, installed: CudaLibrary, file: str, words: str, least: int
) -> None:
    path = (Path(__file__).parent / file).resolve()
    check_suite(fake_cuda, installed, path, least=least, words=words)
