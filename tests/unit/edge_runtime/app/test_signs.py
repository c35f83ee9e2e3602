"""Signs of starting while the process's own thread is within one long call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock
from simulators.waiting import wait_until
from structlog.testing import capture_logs

from edge_runtime.app.signs import SignsMeanwhile
from edge_runtime.model.clock import Instant
from edge_runtime.process import Pulse
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role, list_processes
from edge_runtime.supervisor.notify import Notice, Notifier, NotifySocket

INTERVAL_S = 0.005
LIMIT_S = 1800.0


class RunningClock(HandClock):
    """Goes on by an interval each time that it is asked, so that whoever asks is due."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._told = threading.Condition(self._lock)
        self.asked = 0

    def now(self) -> Instant:
        with self._told:
            self.asked += 1
            self._told.notify_all()
            self.advance(INTERVAL_S)
            return self.instant

    def go_on(self, seconds: float) -> None:
        with self._lock:
            self.advance(seconds)

    def wait_for_questions(self, count: int) -> None:
        with self._told:
            wanted = self.asked + count
            assert self._told.wait_for(lambda: self.asked >= wanted, timeout=30.0)


class Bench:
    """A process that is within a long call, and what its supervisor hears."""

    def __init__(self, folder: Path, notices: NotifySocket) -> None:
        self.clock = RunningClock()
        self.database = folder / "triage.db"
        self.stop = threading.Event()
        self._notices = notices
        self.pulse = Pulse(
            Role.WORKER,
            self.database,
            self.clock,
            Notifier({"NOTIFY_SOCKET": notices.address}),
            interval_s=INTERVAL_S,
        )

    def signs(self) -> SignsMeanwhile:
        return SignsMeanwhile(self.pulse, self.clock, self.stop, limit_s=LIMIT_S)

    def heard(self) -> list[Notice]:
        return [message.notice for message in self._notices.receive()]

    def waits_for(self, notice: Notice, count: int = 3) -> None:
        """Return when a sign came so many times from now on."""
        self.heard()
        found: list[Notice] = []

        def have_come() -> bool:
            found.extend(self.heard())
            return found.count(notice) >= count

        wait_until(have_come)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with NotifySocket() as notices:
        made = Bench(tmp_path, notices)
        with contextlib.closing(made.pulse):
            yield made


def test_signs_go_on_while_the_processes_own_thread_gives_none(bench: Bench) -> None:
    with bench.signs():
        bench.waits_for(Notice.STARTING)
    bench.heard()
    assert bench.heard() == [], "and no longer"


def test_signs_end_with_the_limit_and_the_log_says_so_once(bench: Bench) -> None:
    with capture_logs() as logs, bench.signs():
        bench.waits_for(Notice.STARTING)
        bench.clock.go_on(LIMIT_S)
        bench.clock.wait_for_questions(4)  # what was on its way is out
        bench.heard()
        bench.clock.wait_for_questions(4)
        assert bench.heard() == []
    assert logs == [{"event": "process.silent", "limit_s": LIMIT_S, "log_level": "error"}]


def test_a_word_of_progress_begins_the_limit_anew(bench: Bench) -> None:
    with bench.signs() as signs:
        for _ in range(3):
            bench.waits_for(Notice.STARTING)
            bench.clock.go_on(LIMIT_S)
            bench.clock.wait_for_questions(4)
            signs.progress()
        bench.waits_for(Notice.STARTING)


def test_signs_end_when_the_device_is_told_to_stop(bench: Bench) -> None:
    """Each would let systemd wait another minute for the end."""
    before = set(threading.enumerate())
    with bench.signs():
        (thread,) = set(threading.enumerate()) - before
        bench.waits_for(Notice.STARTING)
        bench.stop.set()
        thread.join(30.0)
        assert not thread.is_alive()
    bench.heard()
    with bench.signs():  # told before it began
        pass
    assert bench.heard() == []


def test_once_the_process_was_ready_signs_say_that_it_lives_and_people_see_it(bench: Bench) -> None:
    bench.pulse.ready()
    with bench.signs():
        bench.waits_for(Notice.ALIVE)
    with contextlib.closing(connect(bench.database)) as connection:
        (row,) = list_processes(connection)
    started_us = HandClock().instant.wall_us
    assert row.started_wall_us == started_us + int(INTERVAL_S * 1_000_000)
    assert row.beat_wall_us > row.started_wall_us
