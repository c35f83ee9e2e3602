"""Kills processes of one device, and of no other, as the kernel does when memory runs out."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import psutil

from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role, list_processes
from simulators.waiting import wait_until
from tools.demo.site import Site

_LIVES_AGAIN_S = 60.0
_AIMS_S = 1.0
_LOOK_S = 0.001
# Work in hand is rare and short: random moments alone would hardly ever hit it.
_ANALYSES_IN_HAND = "SELECT 1 FROM analysis WHERE state = 'RUNNING'"
_DELIVERIES_IN_HAND = "SELECT 1 FROM delivery WHERE lease_owner IS NOT NULL"


@dataclass(slots=True, kw_only=True)
class Killer:
    """Sends SIGKILL at random moments; ``kills`` counts the processes by role."""

    site: Site
    seed: int
    longest_gap_s: float
    at_work_part: float = 0.8
    """This part of the victims has begun to work; the others may still be starting."""
    aimed_part: float = 0.5
    """At this part of them is shot when it has work in hand, if it gets some."""
    kills: Counter[Role] = field(default_factory=Counter)
    kills_at_work: int = 0
    device_kills: int = 0
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def wait_a_moment(self) -> None:
        """Let a random time pass."""
        threading.Event().wait(self.rng.uniform(0, self.longest_gap_s))

    def kill_process(self, role: Role) -> None:
        """Kill one process once it lives; the supervisor starts it again."""
        must_work = self.rng.random() < self.at_work_part
        victims: list[psutil.Process] = []
        device = self._device()

        def find() -> bool:
            workers = {item.pid for item in list_processes(connection)}
            victims[:] = [
                process
                for process in device.children()
                if _role_of(process) is role and (process.pid in workers or not must_work)
            ]
            return bool(victims)

        with contextlib.closing(connect(self.site.database)) as connection:
            wait_until(find, _LIVES_AGAIN_S)
            (victim,) = victims
            self.wait_a_moment()
            if must_work and role is not Role.WEB and self.rng.random() < self.aimed_part:
                self._aim(connection, role)
            victim.kill()  # psutil looks at the start time: never a stranger with its number
        victim.wait(_LIVES_AGAIN_S)
        self.kills[role] += 1
        self.kills_at_work += must_work

    def kill_device(self, *, with_children: bool) -> None:
        """Kill the supervisor, whose death ends its children, or all of them; start it again."""
        device = self._device()
        children = device.children(recursive=True)
        if with_children:
            os.killpg(device.pid, signal.SIGKILL)  # it leads a group of its own
        else:
            device.kill()
        self.device_kills += 1
        self.site.stop_device()
        gone, alive = psutil.wait_procs(children, timeout=_LIVES_AGAIN_S)
        assert not alive, f"{len(alive)} of {len(gone) + len(alive)} processes outlive the device"
        self.site.start_device()

    def _aim(self, connection: sqlite3.Connection, role: Role) -> None:
        ends_s = time.monotonic() + _AIMS_S
        pause = threading.Event()
        while time.monotonic() < ends_s and not self._has_work_in_hand(connection, role):
            pause.wait(_LOOK_S)

    def _has_work_in_hand(self, connection: sqlite3.Connection, role: Role) -> bool:
        if role is Role.NODE:
            return any((self.site.state_dir / "spool" / "incoming").iterdir())
        query = _ANALYSES_IN_HAND if role is Role.WORKER else _DELIVERIES_IN_HAND
        return connection.execute(query).fetchone() is not None

    def _device(self) -> psutil.Process:
        found = [
            process
            for process in psutil.Process().children()
            if str(self.site.config) in _words_of(process) and "run" in _words_of(process)
        ]
        assert len(found) == 1, f"{len(found)} devices run"
        return found[0]


def _words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _role_of(process: psutil.Process) -> Role | None:
    """Say what a process is; None for one that has not begun to be it."""
    words = _words_of(process)
    if "edge_runtime.process" not in words:
        return None
    return Role(words[words.index("edge_runtime.process") + 1])
