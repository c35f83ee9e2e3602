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
from simulators.fake_cuda.building import FakeCuda, build_fake_cuda, why_not
from simulators.fake_cuda.control import FakeDriver, loaded_fake
from simulators.fake_cuda.kernels import kernels_for

from engines.contract import CudaLibrary
from engines.device.contract import Device
from engines.device.host import HostDevice
from engines.device.opening import installed_libraries, open_device

OpenDevice: TypeAlias = Callable[[], Device]

_HOST = "host"

# The host does not fail on demand; test_on_the_fake.py starts processes that run these.
collect_ignore = [] if "EDGE_TRIAGE_TEST_DEVICE" in os.environ else ["test_device_faults.py"]


@pytest.fixture(scope="session")
def library() -> str:
    return os.environ.get("EDGE_TRIAGE_TEST_DEVICE", _HOST)


@pytest.fixture(scope="session")
def fake(library: str) -> FakeDriver | None:
    return None if library == _HOST else loaded_fake()


@pytest.fixture
def faults(fake: FakeDriver | None) -> FakeDriver:
    if fake is None:
        pytest.skip("only the fake libcuda fails on demand")
    return fake


@pytest.fixture
def open_one(library: str) -> OpenDevice:
    if library == _HOST:
        return HostDevice
    return lambda: open_device([CudaLibrary(library)])


@pytest.fixture
def device(open_one: OpenDevice) -> Iterator[Device]:
    with open_one() as opened:
        yield opened


@pytest.fixture(scope="session")
def image(library: str, fake: FakeDriver | None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with HostDevice() if library == _HOST else open_device([CudaLibrary(library)]) as opened:
        folder: Path = tmp_path_factory.mktemp("kernels")
        is_simulated = library == _HOST or fake is not None
        return kernels_for(opened.info, folder, is_simulated=is_simulated)


@pytest.fixture(scope="session")
def fake_cuda(tmp_path_factory: pytest.TempPathFactory) -> FakeCuda:
    reason = why_not()
    if reason is not None:
        pytest.skip(f"the fake libcuda {reason}")
    return build_fake_cuda(tmp_path_factory.mktemp("fake-cuda"))


@pytest.fixture(params=list(CudaLibrary), ids=lambda library: library.value)
def installed(request: pytest.FixtureRequest) -> CudaLibrary:
    """Each library that talks to a driver, in a process of its own."""
    chosen: CudaLibrary = request.param
    if chosen not in installed_libraries():
        pytest.skip(f"{chosen.value} is not installed here")
    return chosen


@pytest.fixture(autouse=True)
def _nothing_stays(fake: FakeDriver | None) -> Iterator[None]:
    """After every test the driver holds nothing, and was asked nothing that it need not survive."""
    yield
    if fake is not None:
        assert fake.live() == {}
        assert fake.abandoned == 0
        assert fake.violations is None
