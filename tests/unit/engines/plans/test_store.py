"""Plans are kept, found, proven, replaced and removed; and built once, whoever asks."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from simulators.plan_bench import (
    KEY,
    NEW_PLAN,
    OLD_PLAN,
    OTHER_KEY,
    PACKAGE_DIGEST,
    REFERENCE,
    change_byte,
    keep_proven,
    leftovers,
    plan_path,
    proof_of,
    proof_path,
    quarantined,
    reasons,
)
from simulators.plan_builder import Builder

import engines.plans.sealed as sealed_module
from engines.errors import EngineBuildError, PlanRejectedError, PlanStoreError
from engines.plans.sealed import BOUNDS, Bounds, SealedKind
from engines.plans.sealed_folder import SealedFolder
from engines.plans.store import PlanStore, StoredPlan

# ------------------------------------------------------------------ keeping and finding


def test_asking_an_empty_store_makes_nothing(store: PlanStore) -> None:
    assert store.find(KEY) is None
    assert store.quarantined() == ()
    assert store.timing_cache(KEY) == b""
    assert store.entries() == ()
    assert store.remove(KEY.digest()) is False
    store.quarantine(KEY, "none is there")
    assert not store.folder.exists()


def test_what_was_kept_is_found_as_it_was(store: PlanStore) -> None:
    kept = store.keep(KEY, NEW_PLAN)
    found = PlanStore(store.folder).find(KEY)
    assert found == kept == StoredPlan(key=KEY, plan=NEW_PLAN, sha256=kept.sha256, proof=None)
    assert store.find(OTHER_KEY) is None


def test_a_plan_of_some_mebibytes_is_found_whole(store: PlanStore) -> None:
    plan = os.urandom(9 << 20)
    store.keep(KEY, plan)
    found = store.find(KEY)
    assert found is not None
    assert found.plan == plan


def test_any_part_of_the_key_that_changes_asks_for_another_plan(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    assert store.find(replace(KEY, driver_version=13000)) is None
    assert store.find(replace(KEY, dla_core=0)) is None
    assert quarantined(store) == []


def test_the_folder_and_its_files_are_of_this_account_alone(store: PlanStore) -> None:
    keep_proven(store, KEY, NEW_PLAN)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3  # secret, plan, proof


def test_the_plan_itself_is_not_shown(store: PlanStore) -> None:
    assert "a plan" not in repr(store.keep(KEY, NEW_PLAN))


@pytest.mark.parametrize("plan", [b"", bytes(101)], ids=["empty", "too large"])
def test_a_plan_out_of_bounds_is_not_kept(
    store: PlanStore, plan: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        BOUNDS, SealedKind.PLAN, Bounds(each_bytes=100, files=2, together_bytes=9999)
    )
    with pytest.raises(PlanStoreError, match="bytes is not kept"):
        store.keep(KEY, plan)
    assert store.find(KEY) is None


@pytest.mark.parametrize("key", ["é".encode(), b"a\nb", b"x" * 40_000])
def test_a_key_that_is_no_line_of_ascii_is_a_bug_of_ours(store: PlanStore, key: bytes) -> None:
    with pytest.raises(ValueError, match=r"ascii|ASCII"):
        SealedFolder(store.folder).keep(SealedKind.KERNEL, key, b"code")


# ------------------------------------------------------------------ proofs


def test_a_plan_without_a_proof_does_not_go_live(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    found = store.find(KEY)
    assert found is not None
    assert not found.is_proven_for(PACKAGE_DIGEST, REFERENCE)


def test_a_proof_is_found_with_its_plan(store: PlanStore) -> None:
    kept = keep_proven(store, KEY, NEW_PLAN)
    found = store.find(KEY)
    assert found is not None
    assert found.proof == proof_of(kept)
    assert found.is_proven_for(PACKAGE_DIGEST, REFERENCE)


def test_a_plan_may_be_kept_with_its_proof(store: PlanStore) -> None:
    proof = proof_of(store.keep(KEY, NEW_PLAN))
    assert store.keep(KEY, NEW_PLAN, proof).proof == proof
    found = store.find(KEY)
    assert found is not None
    assert found.proof == proof


def test_a_proof_that_failed_is_kept_and_proves_nothing(store: PlanStore) -> None:
    kept = store.keep(KEY, NEW_PLAN)
    failed = replace(proof_of(kept), flips=2, passed=False)
    store.attach_proof(KEY, failed)
    found = store.find(KEY)
    assert found is not None
    assert found.proof == failed
    assert not found.is_proven_for(PACKAGE_DIGEST, REFERENCE)


def test_a_plan_that_was_built_again_has_to_be_proven_again(store: PlanStore) -> None:
    """Two builds of one network differ: what was compared is the one and not the other."""
    keep_proven(store, KEY, OLD_PLAN)
    store.keep(KEY, NEW_PLAN)
    found = store.find(KEY)
    assert found is not None
    assert (found.plan, found.proof) == (NEW_PLAN, None)
    assert store.entries()[0].proof is None


def test_a_proof_of_another_plan_is_refused(store: PlanStore) -> None:
    other = store.keep(OTHER_KEY, OLD_PLAN)
    kept = store.keep(KEY, NEW_PLAN)
    for proof in (
        proof_of(other),
        replace(proof_of(kept), plan_sha256="0f" * 32),
        replace(proof_of(kept), key_digest=OTHER_KEY.digest()),
    ):
        with pytest.raises(PlanRejectedError, match="build and compare again"):
            store.attach_proof(KEY, proof)
    found = store.find(KEY)
    assert found is not None
    assert found.proof is None


def test_a_proof_of_a_plan_that_is_gone_is_refused(store: PlanStore) -> None:
    kept = store.keep(KEY, NEW_PLAN)
    store.remove(KEY.digest())
    with pytest.raises(PlanRejectedError, match="build and compare again"):
        store.attach_proof(KEY, proof_of(kept))


# ------------------------------------------------------------------ building


def test_whose_turn_it_is_finds_nothing_and_builds(store: PlanStore) -> None:
    with store.building(KEY) as found:
        assert found is None
        store.keep(KEY, NEW_PLAN)
    with store.building(KEY) as found:
        assert found is not None
        assert found.plan == NEW_PLAN
    assert leftovers(store) == []


def test_a_build_that_fails_leaves_the_turn_to_the_next(store: PlanStore) -> None:
    with pytest.raises(OSError, match=r"^the library's own$"), store.building(KEY):
        raise OSError("the library's own")
    with store.building(KEY, on_wait=lambda: False) as found:
        assert found is None


def test_builds_of_different_keys_do_not_wait_for_each_other(store: PlanStore) -> None:
    with store.building(KEY), store.building(OTHER_KEY, on_wait=lambda: False) as found:
        assert found is None


def test_a_lock_that_is_held_outlives_the_sweeping_of_other_writers(store: PlanStore) -> None:
    with store.building(KEY):
        store.keep(OTHER_KEY, OLD_PLAN)
        assert leftovers(store) == [f".{KEY.digest()}.building"]
        with (
            pytest.raises(EngineBuildError, match="told to stop"),
            store.building(KEY, on_wait=lambda: False),
        ):
            pass


def test_threads_build_a_plan_once(store: PlanStore) -> None:
    builds: list[int] = []
    plans: list[bytes] = []
    together = threading.Barrier(6)

    def want(number: int) -> None:
        together.wait(30)
        with store.building(KEY) as found:
            if found is None:
                builds.append(number)
            plans.append((found or store.keep(KEY, NEW_PLAN)).plan)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(builds) == 1
    assert plans == [NEW_PLAN] * 6


def test_processes_build_a_plan_once(store: PlanStore, tmp_path: Path) -> None:
    built = tmp_path / "built"
    with ExitStack() as stack:
        first = stack.enter_context(Builder(store.folder, built))
        assert first.says() == "building"
        others = [stack.enter_context(Builder(store.folder, built)) for _ in range(3)]
        assert [other.says() for other in others] == ["waiting"] * 3
        first.go_on()
        assert first.says() == "kept"
        assert [other.says() for other in others] == ["found"] * 3
    assert built.read_text("ascii") == "built\n"
    assert leftovers(store) == []


def test_who_waits_for_a_process_that_is_killed_builds_itself(
    store: PlanStore, tmp_path: Path
) -> None:
    built = tmp_path / "built"
    with ExitStack() as stack:
        first = stack.enter_context(Builder(store.folder, built))
        assert first.says() == "building"
        second = stack.enter_context(Builder(store.folder, built))
        assert second.says() == "waiting"
        first.kill()
        assert second.says() == "building"
        second.go_on()
        assert second.says() == "kept"
    assert built.read_text("ascii") == "built\n"


# ------------------------------------------------------------------ listing and removing


def test_entries_say_what_is_there(store: PlanStore) -> None:
    kept = keep_proven(store, KEY, NEW_PLAN)
    store.keep(OTHER_KEY, OLD_PLAN)
    store.keep_timing_cache(KEY, b"times")
    entries = {entry.digest: entry for entry in store.entries()}
    assert entries.keys() == {KEY.digest(), OTHER_KEY.digest()}
    first, second = entries[KEY.digest()], entries[OTHER_KEY.digest()]
    assert (first.key, first.size_bytes, first.proof) == (
        replace(KEY, flags=tuple(sorted(KEY.flags))),
        len(NEW_PLAN),
        proof_of(kept),
    )
    assert (second.size_bytes, second.proof) == (len(OLD_PLAN), None)


def test_entries_show_what_is_not_ours_and_leave_it(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    change_byte(plan_path(store, KEY), 70)
    (entry,) = store.entries()
    assert (entry.digest, entry.key, entry.proof) == (KEY.digest(), None, None)
    assert plan_path(store, KEY).exists()
    assert quarantined(store) == []


def test_entries_show_a_plan_under_another_name_as_not_ours(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    plan_path(store, KEY).rename(plan_path(store, OTHER_KEY))
    (entry,) = store.entries()
    assert (entry.digest, entry.key) == (OTHER_KEY.digest(), None)


def test_what_another_release_kept_proves_nothing_and_is_listed_without_its_key(
    store: PlanStore,
) -> None:
    store.keep(KEY, NEW_PLAN)
    sealed = SealedFolder(store.folder)
    sealed.keep(SealedKind.PROOF, KEY.canonical(), b'{"format":2,"passed":true}')
    found = store.find(KEY)
    assert found is not None
    assert found.proof is None
    sealed.keep(SealedKind.PLAN, b'{"format":99}', OLD_PLAN)
    assert sorted(entry.key is None for entry in store.entries()) == [False, True]


def test_what_was_removed_is_gone_with_its_proof(store: PlanStore) -> None:
    keep_proven(store, KEY, NEW_PLAN)
    assert store.remove(KEY.digest()) is True
    assert store.find(KEY) is None
    assert [path.name for path in store.folder.iterdir()] == ["secret"]
    assert store.remove(KEY.digest()) is False


def test_a_plan_that_a_library_refused_is_moved_away_with_the_reason(store: PlanStore) -> None:
    keep_proven(store, KEY, NEW_PLAN)
    store.quarantine(KEY, "the library says: magic tag does not match\n" + "x" * 9_000)
    assert store.find(KEY) is None
    assert not proof_path(store, KEY).exists()
    assert len(quarantined(store)) == 1
    (reason,) = reasons(store)
    assert reason.startswith("the library says: magic tag")
    assert len(reason) == 500
    (put_aside,) = store.quarantined()
    assert put_aside.name.endswith(plan_path(store, KEY).name)
    assert put_aside.reason == reason.replace("\n", " ")
    found = store.keep(KEY, NEW_PLAN)
    assert found.proof is None


def test_only_plans_are_told_of_the_quarantine_the_oldest_first(store: PlanStore) -> None:
    for key, reason in ((KEY, "first"), (OTHER_KEY, "second"), (KEY, "third")):
        keep_proven(store, key, NEW_PLAN)
        change_byte(proof_path(store, key), -1)
        assert store.find(key) is not None
        store.quarantine(key, reason)
    assert len(quarantined(store)) == 6
    assert [each.reason for each in store.quarantined()] == ["first", "second", "third"]
    assert store.quarantined()[1].name.endswith(plan_path(store, OTHER_KEY).name)


# ------------------------------------------------------------------ bounds


def test_the_oldest_plans_give_way_whatever_the_clock_said(
    store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        BOUNDS, SealedKind.PLAN, Bounds(each_bytes=10_000, files=3, together_bytes=1 << 20)
    )
    keys = [replace(KEY, driver_version=number) for number in range(5)]
    for age_s, key in enumerate(keys):
        store.keep(key, NEW_PLAN)
        # As after a clock that was set back again and again: what is new looks old.
        os.utime(plan_path(store, key), (1_000_000 - age_s, 1_000_000 - age_s))
    left = [key.driver_version for key in keys if store.find(key) is not None]
    assert left == [2, 3, 4]
    store.keep(keys[2], OLD_PLAN)
    store.keep(keys[0], NEW_PLAN)
    assert [key.driver_version for key in keys if store.find(key) is not None] == [0, 2, 4]


def test_the_oldest_plans_give_way_to_a_large_one(
    store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        BOUNDS, SealedKind.PLAN, Bounds(each_bytes=10_000, files=30, together_bytes=12_000)
    )
    keys = [replace(KEY, driver_version=number) for number in range(4)]
    for key in keys:
        store.keep(key, bytes(2_000))
    store.keep(OTHER_KEY, bytes(6_000))
    assert [key.driver_version for key in keys if store.find(key) is not None] == [2, 3]
    assert store.find(OTHER_KEY) is not None


def test_the_one_that_was_just_kept_stays_even_alone_above_the_bound(
    store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        BOUNDS, SealedKind.PLAN, Bounds(each_bytes=10_000, files=30, together_bytes=5_000)
    )
    store.keep(KEY, bytes(3_000))
    store.keep(OTHER_KEY, bytes(9_000))
    assert store.find(KEY) is None
    assert store.find(OTHER_KEY) is not None


def test_every_kind_of_file_is_bounded() -> None:
    assert sealed_module.BOUNDS.keys() == set(SealedKind)
    for bounds in BOUNDS.values():
        assert bounds.each_bytes <= bounds.together_bytes


# ------------------------------------------------------------------ measured times


def test_measured_times_are_of_the_platform_and_not_of_the_model(store: PlanStore) -> None:
    assert store.timing_cache(KEY) == b""
    store.keep_timing_cache(KEY, b"times")
    assert store.timing_cache(OTHER_KEY) == b"times"
    assert store.timing_cache(replace(KEY, gpu_name="another")) == b""
    store.keep_timing_cache(OTHER_KEY, b"more times")
    assert store.timing_cache(KEY) == b"more times"


def test_measured_times_that_were_changed_are_not_used(store: PlanStore) -> None:
    store.keep_timing_cache(KEY, b"times")
    (cache,) = store.folder.glob("*.timing")
    change_byte(cache, -1)
    assert store.timing_cache(KEY) == b""
    assert reasons(store) == ["its content was changed after it was sealed"]


def test_kernels_are_of_one_plan_and_go_when_it_goes(store: PlanStore) -> None:
    assert store.runtime_cache(KEY) == b""
    for go in (
        lambda: store.keep(KEY, OLD_PLAN),
        lambda: store.quarantine(KEY, "the library refused it"),
        lambda: store.remove(KEY.digest()),
    ):
        store.keep(KEY, NEW_PLAN)
        store.keep_runtime_cache(KEY, b"kernels")
        assert store.runtime_cache(KEY) == b"kernels"
        assert store.runtime_cache(OTHER_KEY) == b""
        go()
        assert store.runtime_cache(KEY) == b""


def test_kernels_that_were_changed_or_refused_are_put_aside_and_the_plan_stays(
    store: PlanStore,
) -> None:
    store.keep(KEY, NEW_PLAN)
    store.keep_runtime_cache(KEY, b"kernels")
    (cache,) = store.folder.glob("*.runtime")
    change_byte(cache, -1)
    assert store.runtime_cache(KEY) == b""
    store.keep_runtime_cache(KEY, b"more kernels")
    store.quarantine_runtime_cache(KEY, "the library refused them")
    assert store.runtime_cache(KEY) == b""
    assert reasons(store) == [
        "its content was changed after it was sealed",
        "the library refused them",
    ]
    found = store.find(KEY)
    assert found is not None
    assert found.plan == NEW_PLAN
