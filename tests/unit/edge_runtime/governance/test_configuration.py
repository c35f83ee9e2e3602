from __future__ import annotations

from pathlib import Path

import pytest
from simulators.released_package import believe
from simulators.store_bench import StoreBench

from edge_runtime.governance.configuration import CONFIGURATION, Wanted, hold
from edge_runtime.governance.models import Proof, Verify
from edge_runtime.model.model_package import PackageState
from engines.errors import ParityError
from engines.loading import load_package


def wanted(*folders: Path) -> list[Wanted]:
    return [
        Wanted(label=folder.name, folder=folder, digest=load_package(folder).digest)
        for folder in folders
    ]


def start(
    bench: StoreBench,
    *folders: Path,
    approvals: int = 0,
    shadow_first: bool = False,
    verify: Verify = believe,
    is_complete: bool = True,
) -> list[str]:
    """Start the device with these packages in its settings; return what it could not hold."""
    store = bench.open_store(
        approvals=approvals, shadow_first=shadow_first, verify=verify, actor=CONFIGURATION
    )
    missed = hold(store, wanted(*folders), is_complete=is_complete)
    bench.open_store(approvals=approvals)
    return [item.remedy for item in missed]


def test_a_demonstration_of_the_settings_is_active_after_the_first_start(bench: StoreBench) -> None:
    assert start(bench, bench.release("1.0.0")) == []
    assert bench.active() == ["1.0.0"]
    assert {entry.actor for entry in bench.chain().entries} == {CONFIGURATION}


def test_a_start_without_a_change_records_nothing(bench: StoreBench) -> None:
    start(bench, bench.release("1.0.0"))
    before = bench.actions()
    start(bench, bench.release("1.0.0"))
    assert bench.actions() == before


@pytest.mark.parametrize(("approvals", "demonstration"), [(1, True), (2, True), (0, False)])
def test_what_needs_a_person_waits_for_one(
    bench: StoreBench, approvals: int, demonstration: bool
) -> None:
    release = bench.release("1.0.0", demonstration=demonstration)
    assert start(bench, release, approvals=approvals) == []
    assert bench.state_of("1.0.0") is PackageState.VERIFIED
    for person in ("Ada Byron", "Grace Hopper")[: max(approvals, 1)]:
        bench.store.approve("bright", person=person, note="")
    start(bench, release, approvals=approvals)
    assert bench.state_of("1.0.0") is PackageState.APPROVED, "a person activates it"


def test_a_new_version_in_the_settings_replaces_the_old_one(bench: StoreBench) -> None:
    start(bench, bench.release("1.0.0"))
    start(bench, bench.release("1.1.0"))
    assert bench.active() == ["1.1.0"]
    assert bench.package("1.0.0").is_fallback
    start(bench, bench.release("1.0.0"))
    assert bench.active() == ["1.0.0"], "and back, when the settings go back"


def test_a_new_version_is_a_shadow_first_where_the_settings_say_so(bench: StoreBench) -> None:
    start(bench, bench.release("1.0.0"), shadow_first=True)
    start(bench, bench.release("1.1.0"), shadow_first=True)
    assert bench.active() == ["1.0.0", "1.1.0"]
    assert bench.state_of("1.1.0") is PackageState.SHADOW


def test_while_a_new_version_waits_the_old_one_decides(bench: StoreBench) -> None:
    start(bench, bench.release("1.0.0"))
    start(bench, bench.release("1.1.0"), approvals=1)
    assert bench.active() == ["1.0.0"]
    assert bench.state_of("1.1.0") is PackageState.VERIFIED


def test_what_the_settings_no_longer_name_is_retired(bench: StoreBench) -> None:
    start(bench, bench.release("1.0.0"), bench.release("2.0.0", name="darker"))
    start(bench, bench.release("1.0.0"))
    assert bench.active() == ["1.0.0"]
    start(bench, bench.release("1.0.0"), bench.release("2.0.0", name="darker"))
    assert bench.active() == ["1.0.0", "2.0.0"]


def test_what_a_person_activated_stays_whatever_the_settings_name(bench: StoreBench) -> None:
    bench.run("1.0.0")
    start(bench)
    assert bench.active() == ["1.0.0"]


def test_what_a_person_rolled_back_or_retired_does_not_come_back_by_a_restart(
    bench: StoreBench,
) -> None:
    start(bench, bench.release("1.0.0"))
    start(bench, bench.release("1.1.0"))
    bench.store.rollback("bright")
    start(bench, bench.release("1.1.0"))
    assert bench.active() == ["1.0.0"]
    bench.store.retire("bright")
    start(bench, bench.release("1.1.0"))
    start(bench, bench.release("1.0.0"))
    assert bench.active() == []


def test_a_refused_package_is_told_at_every_start_and_tried_again_only_by_a_person(
    bench: StoreBench,
) -> None:
    def refuse(_folder: Path) -> Proof:
        raise ParityError("it deviates")

    for _ in range(2):
        (remedy,) = start(bench, bench.release("1.0.0"), verify=refuse)
        assert "it deviates" in remedy
    assert bench.actions() == ["install", "refuse"]
    start(bench, bench.release("1.0.0"))
    assert bench.state_of("1.0.0") is PackageState.REFUSED
    bench.store.install(bench.release("1.0.0"))
    start(bench, bench.release("1.0.0"))
    assert bench.active() == ["1.0.0"]


def test_one_bad_package_holds_up_no_other_and_retires_nothing(bench: StoreBench) -> None:
    start(bench, bench.release("2.0.0", name="darker"))
    bad = bench.release("1.0.0")
    entries = wanted(bad, bench.release("3.0.0", name="third"))
    (bad / "model.onnx").write_bytes(b"x")
    store = bench.open_store(actor=CONFIGURATION)
    (missed,) = hold(store, entries, is_complete=True)
    assert missed.label == "bright-1.0.0"
    assert "model.onnx" in missed.remedy
    assert bench.active() == ["2.0.0", "3.0.0"]
    assert "deny" not in bench.actions()


def test_settings_that_could_not_be_read_in_full_retire_nothing(bench: StoreBench) -> None:
    start(bench, bench.release("1.0.0"))
    start(bench, is_complete=False)
    assert bench.active() == ["1.0.0"]


def test_files_that_are_gone_come_back_from_the_settings(bench: StoreBench) -> None:
    start(bench, bench.release("1.0.0"))
    digest = bench.package("1.0.0").digest
    (bench.models / digest).rename(bench.folder / "lost")
    start(bench, bench.release("1.0.0"))
    assert load_package(bench.models / digest).digest == digest
