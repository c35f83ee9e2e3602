"""Real peers for the tests that need one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from simulators.orthanc import Orthanc, run_orthanc

OrthancStarter = Callable[..., AbstractContextManager[Orthanc]]


@pytest.fixture
def start_orthanc() -> OrthancStarter:
    """Starts an Orthanc of the test's own, for tests that stop it or look at its folder."""
    return run_orthanc


@pytest.fixture(scope="session")
def orthanc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One Orthanc for all tests; use ``orthanc``, which is empty at the start of each test."""
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def orthanc(orthanc_server: Orthanc) -> Orthanc:
    """An Orthanc that holds nothing."""
    orthanc_server.clear()
    return orthanc_server
