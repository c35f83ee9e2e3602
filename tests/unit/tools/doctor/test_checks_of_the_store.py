from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulators.store_bench import StoreBench

from tools.doctor.checks_models import check_audit, check_models
from tools.doctor.findings import Context, Status

MakeContext = Callable[..., Context]


@pytest.fixture
def bench(state_dir: Path) -> Iterator[StoreBench]:
    opened = StoreBench(state_dir)
    yield opened
    opened.close()


@pytest.fixture
def context(make_context: MakeContext) -> Context:
    return make_context(models={"packages": [], "approvals_required": 1})


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(
    make_context: MakeContext, state_dir: Path
) -> None:
    assert check_models(make_context()).status is Status.OK
    assert check_audit(make_context()).status is Status.OK
    assert list(state_dir.iterdir()) == []


def test_an_active_whole_package_is_fine(bench: StoreBench, context: Context) -> None:
    bench.run("1.0.0")
    assert check_models(context).status is Status.OK
    found = check_audit(context)
    assert found.status is Status.OK
    assert found.found.startswith("4 entries")


def test_a_package_that_waits_is_told_with_the_command(bench: StoreBench, context: Context) -> None:
    bench.open_store(approvals=1).install(bench.release("1.0.0"))
    found = check_models(context)
    assert found.status is Status.WARNING
    assert "bright 1.0.0 is not used yet" in found.found
    assert "no model is active" in found.found
    assert "models approve bright@1.0.0" in (found.remedy or "")


def test_a_damaged_copy_in_use_fails(bench: StoreBench, context: Context) -> None:
    package = bench.run("1.0.0")
    (bench.models / package.digest / "card.toml").write_text("x")
    found = check_models(context)
    assert found.status is Status.FAILED
    assert "card.toml" in found.found
    assert "models install" in (found.remedy or "")


def test_a_changed_chain_fails_and_one_that_goes_on_is_a_warning(
    bench: StoreBench, context: Context
) -> None:
    bench.run("1.0.0")
    chain = bench.audit / "audit.jsonl"
    kept = chain.read_bytes()
    chain.write_bytes(kept.replace(b"tests", b"TESTS", 1))
    found = check_audit(context)
    assert found.status is Status.FAILED
    assert "audit verify" in (found.remedy or "")
    chain.rename(bench.folder / "evidence")
    bench.store.retire("bright")
    found = check_audit(context)
    assert found.status is Status.WARNING
    assert "4 entries from before" in found.found
