"""Kill it at any step: what the worker may run was verified and approved, and nothing is half."""

from __future__ import annotations

from pathlib import Path

from simulators import killed_store
from simulators.killed import kill_at_every_step
from simulators.killed_store import PERSON, prepare
from simulators.store_bench import StoreBench

from edge_runtime.model.model_package import PackageState
from edge_runtime.store.model_packages import packages_in_use
from engines.loading import load_package

_FINISHED_EACH = 5
"""Going on costs as much as everything else here."""


def _assert_the_worker_may_run_what_it_finds(bench: StoreBench) -> None:
    """As a worker sees it that starts right after the kill, before anybody has tidied up."""
    known = {item.digest: item for item in bench.store.packages()}
    used = packages_in_use(bench.connection)
    assert len(used) <= 1
    for item in used:
        assert load_package(bench.models / item.digest).digest == item.digest
        assert [approval.person for approval in known[item.digest].approvals] == [PERSON]
    assert bench.chain().is_intact


def _assert_nothing_is_half(bench: StoreBench) -> None:
    with bench.store.opened():
        packages = bench.store.packages()
        assert bench.on_disk() == {item.digest for item in packages if not item.is_removed}
    for item in packages:
        if not item.is_removed:
            assert load_package(bench.models / item.digest).digest == item.digest
    assert bench.chain().findings == ()


def _finish(bench: StoreBench, release: Path) -> None:
    """Do again what may have been left undone, until the new version decides."""
    state = {item.version: item.state for item in bench.store.packages()}.get("1.2.0")
    if state not in {PackageState.APPROVED, PackageState.ACTIVE}:
        bench.store.install(release)
        bench.store.approve("bright@1.2.0", person=PERSON, note="")
    if state is not PackageState.ACTIVE:
        bench.store.activate("bright@1.2.0")
    assert bench.active() == ["1.2.0"]


def test_a_kill_at_any_step_leaves_what_can_be_trusted_and_gone_on_with(tmp_path: Path) -> None:
    made = prepare(tmp_path / "template")
    release = made.release("1.2.0")
    made.close()
    makers = tmp_path / "makers"
    (tmp_path / "template" / "makers").rename(makers)
    release = makers / release.name
    left = kill_at_every_step(killed_store, tmp_path / "template", tmp_path / "copies", release)
    assert len(left) > 100, "steps are counted"
    seen = set()
    for number, folder in enumerate(left):
        bench = StoreBench(folder)
        bench.open_store(approvals=1)
        _assert_the_worker_may_run_what_it_finds(bench)
        _assert_nothing_is_half(bench)
        seen.add(tuple(bench.active()))
        if number % _FINISHED_EACH == 0:
            _finish(bench, release)
        bench.close()
    assert seen == {("1.1.0",), ("1.2.0",), ()}
