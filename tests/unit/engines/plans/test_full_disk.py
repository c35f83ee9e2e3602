"""A disk that is full: what was kept stays, what cannot be kept is told, and room mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.plan_bench import (
    KEY,
    NEW_PLAN,
    OLD_PLAN,
    OTHER_KEY,
    change_byte,
    keep_proven,
    leftovers,
    plan_path,
    run_script,
)
from simulators.small_disk import MIB, SmallDisk, memory_disk, why_not

from engines.errors import PlanStoreError
from engines.plans.sealing import SECRET_NAME
from engines.plans.store import PlanStore

_WHY_NOT = why_not()
needs_mount = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))

KEEP = """
import resource, sys
from pathlib import Path
from engines.errors import PlanStoreError
from engines.plans.store import PlanStore
from simulators.plan_bench import KEY, NEW_PLAN
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    PlanStore(Path(sys.argv[1])).keep(KEY, NEW_PLAN)
except PlanStoreError as error:
    sys.exit(9 if "see that the disk has room" in str(error) else str(error))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with memory_disk(tmp_path / "disk", 2 * MIB) as disk:
        yield disk


def keep_with_room_for(folder: Path, limit_bytes: int) -> int:
    """Keep the new plan in a process that can write no file beyond so many bytes."""
    return run_script(KEEP, folder, str(limit_bytes)).returncode


@pytest.mark.parametrize("limit_bytes", [0, 1, 40, 57, 400, 900])
def test_a_write_that_is_cut_short_leaves_the_older_plan(
    store: PlanStore, limit_bytes: int
) -> None:
    """Anywhere: in magic, MAC, header, plan."""
    keep_proven(store, KEY, OLD_PLAN)
    assert plan_path(store, KEY).stat().st_size > 900
    assert keep_with_room_for(store.folder, limit_bytes) == 9
    found = store.find(KEY)
    assert found is not None
    assert found.plan == OLD_PLAN
    assert found.proof is not None
    assert leftovers(store) == []


@pytest.mark.parametrize("limit_bytes", [0, 31])
def test_a_secret_that_finds_no_room_is_not_made_in_part(
    store: PlanStore, limit_bytes: int
) -> None:
    assert keep_with_room_for(store.folder, limit_bytes) == 9
    assert not (store.folder / SECRET_NAME).exists()
    assert keep_with_room_for(store.folder, 1 << 20) == 0
    found = store.find(KEY)
    assert found is not None
    assert found.plan == NEW_PLAN


@needs_mount
def test_a_plan_that_finds_no_room_is_told_and_the_older_one_stays(disk: SmallDisk) -> None:
    store = PlanStore(disk.folder / "engines")
    keep_proven(store, KEY, OLD_PLAN)
    with pytest.raises(PlanStoreError, match=r"No space left.*see that the disk has room"):
        store.keep(KEY, bytes(3 * MIB))
    found = store.find(KEY)
    assert found is not None
    assert (found.plan, found.proof is not None) == (OLD_PLAN, True)
    assert leftovers(store) == []
    assert disk.free_bytes > MIB  # the draft is gone


@needs_mount
def test_on_a_full_disk_plans_are_found_and_bad_ones_are_still_refused(disk: SmallDisk) -> None:
    store = PlanStore(disk.folder / "engines")
    store.keep(KEY, OLD_PLAN)
    store.keep(OTHER_KEY, OLD_PLAN)
    change_byte(plan_path(store, OTHER_KEY), -1)
    disk.fill(leave_bytes=0)
    assert disk.free_bytes == 0
    assert store.find(OTHER_KEY) is None
    assert not plan_path(store, OTHER_KEY).exists()
    found = store.find(KEY)
    assert found is not None
    assert found.plan == OLD_PLAN
    with pytest.raises(PlanStoreError, match="No space left"):
        store.keep(KEY, bytes(MIB))
    disk.make_room()
    assert store.keep(KEY, NEW_PLAN).plan == NEW_PLAN
    assert leftovers(store) == []


@needs_mount
def test_a_full_disk_on_the_first_day_leaves_nothing_half(disk: SmallDisk) -> None:
    disk.fill(leave_bytes=0)
    store = PlanStore(disk.folder / "engines")
    with pytest.raises(PlanStoreError, match="No space left"):
        store.keep(KEY, NEW_PLAN)
    disk.make_room()
    store.keep(KEY, NEW_PLAN)
    assert store.find(KEY) is not None
