"""One at a time: threads, processes, and what is left of those that were killed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from simulators.plan_bench import names_in, open_files

from engines.errors import EngineBuildError
from engines.plans.locks import held, remove_if_free

ROUNDS = 150
COUNTER = """
import sys
from pathlib import Path
from engines.plans.locks import held
lock, counter, patient = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "patient"
sys.stdin.readline()
for _ in range(int(sys.argv[4])):
    with held(lock, on_wait=None if patient else lambda: True):
        number = int(counter.read_text("ascii"))
        counter.write_text(str(number + 1), "ascii")
"""


def test_a_lock_leaves_no_file_behind(tmp_path: Path) -> None:
    with held(tmp_path / "lock"):
        assert names_in(tmp_path) == ["lock"]
    assert names_in(tmp_path) == []


def test_a_failure_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(tmp_path / "lock"):
        _ = 1 / 0
    with held(tmp_path / "lock", on_wait=lambda: False):
        pass


def test_a_file_that_a_killed_holder_left_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with held(tmp_path / "lock", on_wait=lambda: False):
        pass
    assert names_in(tmp_path) == []


def test_who_waits_may_give_up(tmp_path: Path) -> None:
    looks = []

    def give_up_at_the_third() -> bool:
        looks.append(True)
        return len(looks) < 3

    with (
        held(tmp_path / "lock"),
        pytest.raises(EngineBuildError, match="told to stop while another process builds"),
        held(tmp_path / "lock", on_wait=give_up_at_the_third),
    ):
        raise AssertionError("two hold one lock")
    assert len(looks) == 3


def test_waiting_and_giving_up_leave_no_file_open(tmp_path: Path) -> None:
    before = open_files()
    with held(tmp_path / "lock"):
        for _ in range(5):
            with (
                pytest.raises(EngineBuildError),
                held(tmp_path / "lock", on_wait=lambda: False),
            ):
                pass
    assert open_files() == before


def test_threads_take_turns(tmp_path: Path) -> None:
    order: list[str] = []
    waits = threading.Event()

    def on_wait() -> bool:
        waits.set()
        return True

    def second() -> None:
        with held(tmp_path / "lock", on_wait=on_wait):
            order.append("second")

    thread = threading.Thread(target=second)
    with held(tmp_path / "lock"):
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_processes_that_hurry_never_hold_one_lock_together(tmp_path: Path) -> None:
    """The file of the lock is removed each time: a count would be lost if two held two files."""
    counter = tmp_path / "counter"
    counter.write_text("0", "ascii")
    kinds = ["patient", "patient", "looking", "looking"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTER, tmp_path / "lock", counter, kind, str(ROUNDS)],
            stdin=subprocess.PIPE,
        )
        for kind in kinds
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.close()
    assert [worker.wait(120) for worker in workers] == [0] * len(kinds)
    assert int(counter.read_text("ascii")) == len(kinds) * ROUNDS
    assert names_in(tmp_path) == ["counter"]


def test_a_lock_file_is_removed_only_when_nobody_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held(lock):
        remove_if_free(lock)
        assert lock.exists()
    lock.touch()
    remove_if_free(lock)
    assert not lock.exists()
    remove_if_free(lock)


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"), held(tmp_path / "lock"):
        raise AssertionError("the lock was taken through a link")
    assert victim.exists()


def test_a_child_that_has_the_file_open_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held(lock):
        (descriptor,) = [
            int(path.name)
            for path in Path("/proc/self/fd").iterdir()
            if path.resolve() == lock.resolve()
        ]
        shared = os.dup(descriptor)  # as a forked child has it
        waiter = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(waiter, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(shared)
        os.close(waiter)
