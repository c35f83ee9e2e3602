"""On which device the kernels are tested: ``EDGE_TRIAGE_TEST_DEVICE``, else the host.

``pycuda`` and ``cuda-bindings`` take the libcuda that the process finds: the fake one, which runs
kernels of the host (``test_on_the_fake.py`` starts such processes), or that of a real GPU.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from simulators.fake_cuda.control import FakeDriver, loaded_fake
from simulators.fake_cuda.suites import DEVICE_VARIABLE, HOST
from simulators.fused import FusedKernel

from engines.contract import CudaLibrary
from engines.device.contract import Device
from engines.device.host import HostDevice
from engines.device.opening import open_device
from engines.kernel.compiling import Target, compile_for_host, compile_kernels

_LIBRARY = os.environ.get(DEVICE_VARIABLE, HOST)


def opened() -> Device:
    return HostDevice() if _LIBRARY == HOST else open_device([CudaLibrary(_LIBRARY)])


@pytest.fixture(scope="session")
def fake() -> FakeDriver | None:
    return None if _LIBRARY == HOST else loaded_fake()


@pytest.fixture(scope="session")
def host_image() -> bytes:
    """The kernels as a shared object."""
    if shutil.which("c++") is None:
        pytest.skip(
            "no C++ compiler here (apt-get install g++): the kernels cannot run on the host"
        )
    return compile_for_host()


@pytest.fixture(scope="session")
def device_image(fake: FakeDriver | None, request: pytest.FixtureRequest) -> bytes:
    """The kernels for the device."""
    if _LIBRARY != HOST and fake is None:
        with opened() as device:
            return compile_kernels(Target.of(device.info))
    image: bytes = request.getfixturevalue("host_image")
    return image


@pytest.fixture
def kernel(device_image: bytes, fake: FakeDriver | None) -> Iterator[FusedKernel]:
    """The kernels on the device, which has everything back in the end."""
    with opened() as device:
        yield FusedKernel(device=device, kernels=device_image)
        assert not any(device.open_resources().values())
    if fake is not None:
        assert fake.live() == {}
        assert fake.violations is None
