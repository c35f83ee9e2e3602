from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.store_bench import StoreBench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[StoreBench]:
    opened = StoreBench(tmp_path / "device")
    yield opened
    opened.close()
