"""Which device the tests of this folder run on: ``EDGE_TRIAGE_TEST_DEVICE``, else the host.

``pycuda`` and ``cuda-bindings`` take the libcuda that the process finds: the fake one
(``test_on_the_fake.py`` starts such processes), or that of a real GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from simulators.fake_cuda.control import FakeDriver, loaded_fake
from simulators.fake_cuda.kernels import kernels_for
from simulators.fake_cuda.suites import DEVICE_VARIABLE, HOST

from engines.contract import CudaLibrary
from engines.device.contract import Device
from engines.device.host import HostDevice
from engines.device.opening import open_device

OpenDevice: TypeAlias = Callable[[], Device]

# The host does not fail on demand; test_on_the_fake.py starts processes that run these.
collect_ignore = [] if DEVICE_VARIABLE in os.environ else ["test_device_faults.py"]


@pytest.fixture(scope="session")
def library() -> str:
    return os.environ.get(DEVICE_VARIABLE, HOST)


@pytest.fixture(scope="session")
def fake(library: str) -> FakeDriver | None:
    return None if library == HOST else loaded_fake()


@pytest.fixture
def faults(fake: FakeDriver | None) -> FakeDriver:
    if fake is None:
        pytest.skip("only the fake libcuda fails on demand")
    return fake


@pytest.fixture
def open_one(library: str) -> OpenDevice:
    if library == HOST:
        return HostDevice
    return lambda: open_device([CudaLibrary(library)])


@pytest.fixture
def device(open_one: OpenDevice) -> Iterator[Device]:
    with open_one() as opened:
        yield opened


@pytest.fixture(scope="session")
def image(library: str, fake: FakeDriver | None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with HostDevice() if library == HOST else open_device([CudaLibrary(library)]) as opened:
        folder: Path = tmp_path_factory.mktemp("kernels")
        is_simulated = library == HOST or fake is not None
        return kernels_for(opened.info, folder, is_simulated=is_simulated)


@pytest.fixture(autouse=True)
def _nothing_stays(fake: FakeDriver | None) -> Iterator[None]:
    """After every test the driver holds nothing, and was asked nothing that it need not survive."""
    yield
    if fake is not None:
        assert fake.live() == {}
        assert fake.abandoned == 0
        assert fake.violations is None
