"""The real TensorRT-RTX where it is installed, which builds without a GPU; and the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.small_models import Shipped, open_shipped, quantise
from simulators.tensorrt_rig import TensorRtRig

from engines.contract import Backend
from engines.errors import EngineUnavailableError
from engines.shipped import shipped_packages
from engines.tensorrt.library import TensorRtLibrary, load_library


@pytest.fixture(scope="session")
def rtx() -> TensorRtLibrary:
    try:
        return load_library(Backend.TENSORRT_RTX)
    except EngineUnavailableError as error:
        pytest.skip(f"TensorRT-RTX is not here: {error}")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[TensorRtRig]:
    made = TensorRtRig(tmp_path / "plans")
    yield made
    assert made.leftovers() == {}


@pytest.fixture(scope="session", params=list(shipped_packages()))
def shipped(request: pytest.FixtureRequest) -> Shipped:
    return open_shipped(request.param)


@pytest.fixture(scope="session")
def head_ct() -> Shipped:
    return open_shipped("head_ct_phantom")


@pytest.fixture(scope="session")
def quantised(head_ct: Shipped) -> bytes:
    return quantise(head_ct.model, head_ct.manifest.input.shape)
