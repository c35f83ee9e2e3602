"""A folder's sync that many threads share."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.durable import SharedSync


class SlowDisk:
    """Takes the place of ``os.fsync``: each call waits until it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False
        self._entered = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)

    def fsync(self, _descriptor: int) -> None:
        self.calls += 1
        self._entered.release()
        assert self._gate.acquire(timeout=10)
        if self.fails:
            raise OSError(5, "the disk fails")

    def wait_entered(self) -> None:
        assert self._entered.acquire(timeout=10)

    def let_go(self, times: int = 1) -> None:
        for _ in range(times):
            self._gate.release()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk()
    monkeypatch.setattr(os, "fsync", slow.fsync)
    yield slow
    slow.let_go(10)


def _run(sync: SharedSync, errors: list[OSError]) -> threading.Thread:
    def call() -> None:
        try:
            sync.sync()
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_all_that_come_during_a_sync_share_the_next_one(tmp_path: Path, disk: SlowDisk) -> None:
    sync, errors = SharedSync(tmp_path), list[OSError]()
    threads = [_run(sync, errors)]
    disk.wait_entered()
    threads += [_run(sync, errors) for _ in range(5)]
    while sync_waiters(sync) < 5:
        os.sched_yield()
    disk.let_go()
    disk.wait_entered()
    disk.let_go()
    for thread in threads:
        thread.join(10)
    assert (disk.calls, errors) == (2, [])


def sync_waiters(sync: SharedSync) -> int:
    return len(sync._changed._waiters)  # type: ignore[attr-defined]


def test_failure_reaches_all_that_waited_for_it_and_nobody_after(
    tmp_path: Path, disk: SlowDisk
) -> None:
    sync, errors = SharedSync(tmp_path), list[OSError]()
    disk.fails = True
    first = _run(sync, errors)
    disk.wait_entered()
    disk.let_go()
    first.join(10)
    assert [error.errno for error in errors] == [5]
    disk.fails = False
    disk.let_go()
    sync.sync()
