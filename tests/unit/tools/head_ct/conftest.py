from __future__ import annotations

from pathlib import Path

import pytest

from engines.shipped import shipped_packages


@pytest.fixture(scope="session")
def shipped() -> Path:
    """Folder of the shipped package."""
    return shipped_packages()["head_ct_phantom"]
