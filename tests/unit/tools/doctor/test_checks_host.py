from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import pytest

from edge_runtime.clock import is_clock_synced
from tools.doctor.checks_host import (
    check_clock,
    check_limits,
    check_python,
    check_sqlite,
    judge_clock,
    judge_memory,
    judge_open_files,
    judge_python,
    judge_sqlite,
)
from tools.doctor.findings import Context, Status

MakeContext = Callable[..., Context]


def test_this_python_and_sqlite_are_fine(make_context: MakeContext) -> None:
    assert check_python(make_context()).status is Status.OK
    assert check_sqlite(make_context()).status is Status.OK


@pytest.mark.parametrize(
    ("version", "status"),
    [
        (("3", "9", "18"), Status.FAILED),
        (("3", "10", "0"), Status.OK),
        (("3", "13", "9"), Status.OK),
        (("3", "14", "0"), Status.WARNING),
    ],
)
def test_only_tested_pythons_are_fine(version: tuple[str, str, str], status: Status) -> None:
    assert judge_python(version).status is status


def test_sqlite_without_strict_tables_fails_and_the_version_needed_is_named() -> None:
    found = judge_sqlite((3, 36, 0))
    assert found.status is Status.FAILED
    assert "3.37" in (found.remedy or "")


def test_a_clock_that_nothing_keeps_is_a_warning_that_names_the_daemons() -> None:
    found = judge_clock(synced=False)
    assert found.status is Status.WARNING
    assert "chrony" in (found.remedy or "")
    assert "systemd-timesyncd" in (found.remedy or "")


def test_the_clock_is_judged_by_what_the_kernel_says(make_context: MakeContext) -> None:
    assert check_clock(make_context()) == judge_clock(synced=is_clock_synced())


@pytest.fixture
def few_open_files() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 300
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files_for_the_associations_fail(
    make_context: MakeContext, few_open_files: int
) -> None:
    found = check_limits(make_context(node={"max_associations": 256}))
    assert found.status is Status.FAILED
    assert str(few_open_files) in found.found
    assert "LimitNOFILE" in (found.remedy or "")
    assert "node.max_associations" in (found.remedy or "")


def test_no_limit_of_open_files_is_fine() -> None:
    assert judge_open_files(None, 256).status is Status.OK


def test_too_little_memory_is_a_warning_that_names_the_keys(make_context: MakeContext) -> None:
    settings = make_context(worker={"prepared_cache_mib": 8_192}).settings
    found = judge_memory(4 << 30, settings)
    assert found.status is Status.WARNING
    assert "worker.prepared_cache_mib" in (found.remedy or "")
    assert judge_memory(16 << 30, settings).status is Status.OK
