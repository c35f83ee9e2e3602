"""What the tests of the GPU check share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.gpu_check_rows import Found

from engines.device.driver import find_driver
from engines.errors import DeviceUnavailableError
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages


@pytest.fixture
def found(tmp_path: Path) -> Found:
    return Found(tmp_path / "step.jsonl")


@pytest.fixture
def no_gpu() -> Callable[[], None]:
    """Skips where there is a GPU: the check itself takes minutes there."""

    def skip() -> None:
        try:
            find_driver()
        except DeviceUnavailableError:
            return
        pytest.skip("a GPU is here: run `python -m tools.gpu_check`")

    return skip


@pytest.fixture(scope="session")
def head_ct() -> LoadedPackage:
    return load_package(shipped_packages()["head_ct_phantom"])


@pytest.fixture(scope="session")
def radiographs() -> LoadedPackage:
    return load_package(shipped_packages()["paediatric_cxr_pneumonia"])
