from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.released_package import copy_of, pack, write_release
from simulators.store_bench import StoreBench

from edge_runtime.governance.errors import (
    ArchiveError,
    AuditWriteError,
    ModelStoreBusyError,
    ModelStoreError,
    NotAllowedError,
)
from edge_runtime.governance.models import ModelStore, Proof
from edge_runtime.governance.records import Denied
from edge_runtime.model.model_package import PackageState
from engines.errors import EngineUnavailableError, PackageError, ParityError
from engines.loading import load_package


def refuse(_folder: Path) -> Proof:
    raise ParityError("it does not reproduce\nits golden outputs")


# ---------------------------------------------------------------- installation


def test_a_demonstration_is_installed_verified_and_released_without_a_person(
    bench: StoreBench,
) -> None:
    source = bench.release("1.0.0")
    done = bench.store.install(source)
    assert not done.was_there
    assert done.package.state is PackageState.APPROVED
    assert bench.actions() == ["install", "verify", "release"]
    assert bench.on_disk() == {done.package.digest}
    assert load_package(bench.models / done.package.digest).digest == load_package(source).digest


@pytest.mark.parametrize("name", ["p.zip", "p.tar", "p.tar.gz", "p.tgz"])
@pytest.mark.parametrize("inside", ["", "bright-1.0.0"])
def test_an_archive_installs_what_its_folder_does(
    bench: StoreBench, tmp_path: Path, name: str, inside: str
) -> None:
    source = bench.release("1.0.0")
    done = bench.store.install(pack(source, tmp_path / name, inside=inside))
    assert done.package.digest == load_package(source).digest
    assert bench.on_disk() == {done.package.digest}


def test_the_same_bytes_again_change_nothing_and_are_told_of(bench: StoreBench) -> None:
    bench.store.install(bench.release("1.0.0"))
    before = bench.actions()
    again = bench.store.install(bench.release("1.0.0"))
    assert again.was_there
    assert bench.actions() == before


def test_other_bytes_under_the_same_version_are_refused(bench: StoreBench, tmp_path: Path) -> None:
    bench.store.install(bench.release("1.0.0"))
    write_release(tmp_path / "other", "1.0.0", title="OTHER")
    with pytest.raises(NotAllowedError, match="a change of any byte is a new version"):
        bench.store.install(tmp_path / "other")
    assert bench.actions()[-1] == "deny"
    assert len(bench.on_disk()) == 1


def test_a_package_that_was_changed_is_refused_and_leaves_nothing(
    bench: StoreBench, tmp_path: Path
) -> None:
    changed = copy_of(bench.release("1.0.0"), tmp_path / "changed")
    (changed / "model.onnx").write_bytes(b"x")
    with pytest.raises(PackageError, match=r"model\.onnx"):
        bench.store.install(changed)
    record = bench.last_entry().record
    assert isinstance(record, Denied)
    assert (record.asked, record.subject) == ("install", "changed")
    assert bench.on_disk() == set()
    assert bench.store.packages() == ()


def test_what_is_no_archive_is_refused(bench: StoreBench, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(b"\xff\xd8" * 1000)
    with pytest.raises(ArchiveError, match=r"no \.zip"):
        bench.store.install(path)
    assert bench.on_disk() == set()


def test_a_failed_verification_refuses_the_package_and_keeps_the_reason(bench: StoreBench) -> None:
    store = bench.open_store(verify=refuse)
    package = store.install(bench.release("1.0.0")).package
    assert package.state is PackageState.REFUSED
    assert package.refusal == "it does not reproduce its golden outputs"
    assert package.is_removed
    assert bench.on_disk() == set()
    with pytest.raises(NotAllowedError, match="install it again"):
        store.approve("bright", person="Ada Byron", note="")


def test_a_refused_package_is_tried_again_when_it_is_installed_again(bench: StoreBench) -> None:
    bench.open_store(verify=refuse).install(bench.release("1.0.0"))
    done = bench.open_store().install(bench.release("1.0.0"))
    assert not done.was_there
    assert done.package.state is PackageState.APPROVED
    assert done.package.refusal == ""
    assert bench.on_disk() == {done.package.digest}


def test_without_an_engine_a_package_is_not_refused_and_is_verified_later(
    bench: StoreBench,
) -> None:
    def no_engine(_folder: Path) -> Proof:
        raise EngineUnavailableError("install it")

    with pytest.raises(EngineUnavailableError):
        bench.open_store(verify=no_engine).install(bench.release("1.0.0"))
    assert bench.state_of("1.0.0") is PackageState.INSTALLED
    done = bench.open_store().install(bench.release("1.0.0"))
    assert done.was_there
    assert done.package.state is PackageState.APPROVED


def test_a_damaged_copy_is_mended_by_the_same_package(bench: StoreBench) -> None:
    package = bench.run("1.0.0")
    (bench.models / package.digest / "model.onnx").write_bytes(b"x")
    assert bench.store.install(bench.release("1.0.0")).was_there
    assert load_package(bench.models / package.digest).digest == package.digest


# ---------------------------------------------------------------- approval


def test_what_is_no_demonstration_needs_a_person_whatever_the_settings_say(
    bench: StoreBench,
) -> None:
    bench.store.install(bench.release("1.0.0", demonstration=False))
    assert bench.state_of("1.0.0") is PackageState.VERIFIED
    with pytest.raises(NotAllowedError, match="lacks 1 of 1 approvals"):
        bench.store.activate("bright")
    approved = bench.store.approve("bright", person="Ada Byron", note="Committee of May")
    assert approved.state is PackageState.APPROVED
    assert bench.store.activate("bright").state is PackageState.ACTIVE


def test_two_approvals_are_by_two_people(bench: StoreBench) -> None:
    store = bench.open_store(approvals=2)
    store.install(bench.release("1.0.0"))
    assert store.approve("bright", person="Ada Byron", note="").state is PackageState.VERIFIED
    for spelling in ("ada  byron", " ADA BYRON ", "\uff21da Byron"):
        with pytest.raises(NotAllowedError, match="another person must"):
            store.approve("bright", person=spelling, note="")
    with pytest.raises(NotAllowedError, match="another person must run"):
        store.activate("bright")
    package = store.approve("bright", person="Grace Hopper", note="")
    assert package.state is PackageState.APPROVED
    assert [item.person for item in package.approvals] == ["Ada Byron", "Grace Hopper"]
    assert package.approvals[0].account == "user tests"


@pytest.mark.parametrize(
    ("person", "says"),
    [
        ("", "letters"),
        ("1", "letters"),
        ("Ada\u200bByron", "cannot be seen"),
        ("Ada\x1b[2J", "cannot be seen"),
        ("A" * 101, "100 characters"),
    ],
)
def test_what_is_no_name_approves_nothing(bench: StoreBench, person: str, says: str) -> None:
    store = bench.open_store(approvals=1)
    store.install(bench.release("1.0.0"))
    with pytest.raises(NotAllowedError, match=says):
        store.approve("bright", person=person, note="")
    assert bench.package("1.0.0").approvals == ()


def test_when_more_approvals_are_asked_for_later_those_given_still_count(
    bench: StoreBench,
) -> None:
    store = bench.open_store(approvals=1)
    store.install(bench.release("1.0.0"))
    store.approve("bright", person="Ada Byron", note="")
    store = bench.open_store(approvals=2)
    with pytest.raises(NotAllowedError, match="lacks 1 of 2"):
        store.activate("bright")
    store.approve("bright", person="Grace Hopper", note="")
    assert store.activate("bright").state is PackageState.ACTIVE


def test_when_fewer_are_asked_for_later_those_given_are_enough(bench: StoreBench) -> None:
    store = bench.open_store(approvals=2)
    store.install(bench.release("1.0.0"))
    store.approve("bright", person="Ada Byron", note="")
    assert bench.open_store(approvals=1).activate("bright").state is PackageState.ACTIVE


def test_a_retired_package_begins_anew_without_its_approvals(bench: StoreBench) -> None:
    store = bench.open_store(approvals=1)
    store.install(bench.release("1.0.0"))
    store.approve("bright", person="Ada Byron", note="")
    store.activate("bright")
    store.retire("bright")
    package = store.install(bench.release("1.0.0")).package
    assert package.state is PackageState.VERIFIED
    assert package.approvals == ()


# ---------------------------------------------------------------- activation and rollback


def test_the_version_of_before_is_kept_and_what_is_older_goes(bench: StoreBench) -> None:
    first, second, third = (bench.run(version) for version in ("1.0.0", "1.1.0", "1.2.0"))
    assert bench.active() == ["1.2.0"]
    assert bench.on_disk() == {second.digest, third.digest}
    assert bench.package("1.1.0").is_fallback
    assert bench.package("1.0.0").is_removed
    assert first.digest in {item.digest for item in bench.store.packages()}


def test_a_rollback_goes_back_once_and_keeps_the_withdrawn_version_for_inspection(
    bench: StoreBench,
) -> None:
    bench.run("1.0.0")
    second = bench.run("1.1.0")
    assert bench.store.rollback("bright").version == "1.0.0"
    assert bench.active() == ["1.0.0"]
    assert bench.state_of("1.1.0") is PackageState.RETIRED
    assert second.digest in bench.on_disk()
    with pytest.raises(NotAllowedError, match="no earlier version"):
        bench.store.rollback("bright")
    with pytest.raises(NotAllowedError, match="install it again"):
        bench.store.activate("bright@1.1.0")


def test_after_a_rollback_the_next_version_clears_the_withdrawn_one(bench: StoreBench) -> None:
    bench.run("1.0.0")
    withdrawn = bench.run("1.1.0")
    bench.store.rollback("bright")
    bench.run("1.2.0")
    assert withdrawn.digest not in bench.on_disk()
    assert bench.store.rollback("bright").version == "1.0.0"


def test_a_rollback_from_nothing_uses_the_fallback(bench: StoreBench) -> None:
    bench.run("1.0.0")
    bench.run("1.1.0")
    bench.store.retire("bright")
    assert bench.active() == []
    bench.store.rollback("bright")
    assert bench.active() == ["1.0.0"]


def test_retiring_and_activating_another_keeps_the_fallback(bench: StoreBench) -> None:
    bench.run("1.0.0")
    retired = bench.run("1.1.0")
    bench.store.retire("bright")
    bench.run("1.2.0")
    assert retired.digest not in bench.on_disk()
    assert bench.package("1.0.0").is_fallback


def test_models_of_different_names_do_not_concern_each_other(bench: StoreBench) -> None:
    bench.run("1.0.0")
    bench.run("1.1.0")
    bench.run("2.0.0", name="darker")
    assert bench.active() == ["1.1.0", "2.0.0"]
    assert bench.package("1.0.0").is_fallback


@pytest.mark.parametrize("act", [ModelStore.activate, ModelStore.rollback])
def test_what_was_changed_on_disk_does_not_become_active(
    bench: StoreBench, act: Callable[[ModelStore, str], object]
) -> None:
    first = bench.run("1.0.0")
    bench.run("1.1.0")
    waiting = bench.store.install(bench.release("1.2.0")).package
    victim, reference = (
        (waiting, "bright@1.2.0") if act is ModelStore.activate else (first, "bright")
    )
    (bench.models / victim.digest / "card.toml").write_bytes(b"x")
    with pytest.raises(ModelStoreError, match="install the package again"):
        act(bench.store, reference)
    assert bench.active() == ["1.1.0"]


def test_what_never_decided_leaves_the_disk_when_it_is_retired(bench: StoreBench) -> None:
    bench.store.install(bench.release("1.0.0"))
    assert bench.store.retire("bright").is_removed
    assert bench.on_disk() == set()


# ---------------------------------------------------------------- shadow


def test_a_shadow_runs_beside_the_active_version_and_may_take_its_place(bench: StoreBench) -> None:
    bench.run("1.0.0")
    bench.store.install(bench.release("1.1.0"))
    assert bench.store.shadow("bright@1.1.0").state is PackageState.SHADOW
    assert bench.active() == ["1.0.0", "1.1.0"]
    bench.store.install(bench.release("1.2.0"))
    with pytest.raises(NotAllowedError, match="is a shadow already"):
        bench.store.shadow("bright@1.2.0")
    assert bench.store.activate("bright@1.1.0").state is PackageState.ACTIVE
    assert bench.active() == ["1.1.0"]


def test_where_the_settings_ask_for_it_a_new_version_is_a_shadow_first(bench: StoreBench) -> None:
    store = bench.open_store(shadow_first=True)
    bench.run("1.0.0")  # replaces nothing
    store.install(bench.release("1.1.0"))
    with pytest.raises(NotAllowedError, match="--shadow"):
        store.activate("bright@1.1.0")
    store.shadow("bright@1.1.0")
    assert store.activate("bright@1.1.0").state is PackageState.ACTIVE


# ---------------------------------------------------------------- what is meant


def test_a_name_that_means_several_or_none_is_told(bench: StoreBench) -> None:
    first = bench.store.install(bench.release("1.0.0")).package
    bench.store.install(bench.release("1.1.0"))
    with pytest.raises(NotAllowedError, match=r"bright@1\.0\.0, bright@1\.1\.0"):
        bench.store.activate("bright")
    with pytest.raises(NotAllowedError, match="models list"):
        bench.store.activate("dark")
    with pytest.raises(NotAllowedError, match="models list"):
        bench.store.activate(first.digest[:7])
    assert bench.store.activate(first.digest[:8]).version == "1.0.0"
    with pytest.raises(NotAllowedError, match=r"bright@1\.0\.0 is ACTIVE"):
        bench.store.activate("bright@1.0.0")


def test_a_retirement_by_name_means_the_active_version(bench: StoreBench) -> None:
    bench.run("1.0.0")
    bench.store.install(bench.release("1.1.0"))
    assert bench.store.retire("bright").version == "1.0.0"


def test_every_denial_is_in_the_chain(bench: StoreBench) -> None:
    acts: tuple[Callable[[], object], ...] = (
        lambda: bench.store.approve("nobody", person="Ada Byron", note=""),
        lambda: bench.store.activate("nobody"),
        lambda: bench.store.shadow("nobody"),
        lambda: bench.store.rollback("no\x1bbody"),
        lambda: bench.store.retire(""),
    )
    for act in acts:
        with pytest.raises(NotAllowedError):
            act()
    records = [entry.record for entry in bench.chain().entries]
    assert [item.asked for item in records if isinstance(item, Denied)] == [
        "approve",
        "activate",
        "shadow",
        "rollback",
        "retire",
    ]
    assert bench.chain().is_intact


# ---------------------------------------------------------------- the disk, and others


def test_a_second_writer_waits_and_then_says_who_is_in_the_way(bench: StoreBench) -> None:
    store = bench.open_store(patience_s=0.0)
    bench.audit.mkdir()
    with bench.opened_chain(), pytest.raises(ModelStoreBusyError, match="try again"):
        store.install(bench.release("1.0.0"))


def test_two_installations_at_once_come_one_after_the_other(
    bench: StoreBench, tmp_path: Path
) -> None:
    bench.release("1.0.0"), bench.release("1.1.0")
    others = [StoreBench(bench.folder) for _ in range(2)]
    threads = [
        threading.Thread(target=other.store.install, args=(bench.release(version),))
        for other, version in zip(others, ("1.0.0", "1.1.0"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert {item.state for item in bench.store.packages()} == {PackageState.APPROVED}
    assert len(bench.store.packages()) == 2
    assert bench.chain().is_intact
    del tmp_path


def test_without_a_chain_nothing_is_done(bench: StoreBench) -> None:
    bench.audit.write_text("in the way")
    with pytest.raises(AuditWriteError, match="cannot be opened"):
        bench.store.install(bench.release("1.0.0"))
    assert bench.on_disk() == set()


def test_a_store_that_cannot_be_written_says_so(bench: StoreBench) -> None:
    bench.models.write_text("in the way")
    with pytest.raises(ModelStoreError, match="cannot be copied"):
        bench.store.install(bench.release("1.0.0"))


def test_what_a_crash_left_in_the_folder_is_swept(bench: StoreBench) -> None:
    kept = bench.run("1.0.0")
    shutil.copytree(bench.models / kept.digest, bench.models / ("0" * 64))
    (bench.models / ".incoming-1" / "deep").mkdir(parents=True)
    (bench.models / ".gone-1").mkdir()
    (bench.models / "stray").write_text("x")
    (bench.models / "link").symlink_to("/nowhere")
    with bench.store.opened():
        assert bench.on_disk() == {kept.digest}


def test_a_lost_database_is_rebuilt_from_the_chain(bench: StoreBench) -> None:
    store = bench.open_store(approvals=1)
    for version in ("1.0.0", "1.1.0"):
        store.install(bench.release(version))
        store.approve(f"bright@{version}", person="Ada Byron", note="")
        store.activate(f"bright@{version}")
    before = store.packages()
    bench.close()
    for path in bench.folder.glob("triage.db*"):
        path.unlink()
    again = StoreBench(bench.folder)
    with again.store.opened():
        assert again.store.packages() == before
    again.close()
