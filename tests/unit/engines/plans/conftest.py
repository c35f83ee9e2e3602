"""A store of plans in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.plans.store import PlanStore


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines")
