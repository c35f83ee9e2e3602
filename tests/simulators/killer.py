"""Kills processes of one device, and of no other, as a power cut or the kernel's OOM killer does."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field

import psutil

from edge_runtime.store.processes import Role
from simulators.waiting import wait_until
from tools.demo.site import Site

_LIVES_AGAIN_S = 60.0


@dataclass(slots=True, kw_only=True)
class Killer:
    """Sends SIGKILL at random moments; ``kills`` counts the processes by role."""

    site: Site
    rng: random.Random
    longest_gap_s: float
    kills: Counter[Role] = field(default_factory=Counter)
    device_kills: int = 0

    def wait_a_moment(self) -> None:
        """Let a random time pass."""
        threading.Event().wait(self.rng.uniform(0, self.longest_gap_s))

    def kill_process(self, role: Role) -> None:
        """Kill one process once it lives; the supervisor starts it again."""
        victims: list[psutil.Process] = []

        def find() -> bool:
            victims[:] = [process for process in self._processes() if _role_of(process) is role]
            return bool(victims)

        wait_until(find, _LIVES_AGAIN_S)
        for victim in victims:  # psutil looks at the start time: never a stranger with its number
            victim.kill()
            self.kills[role] += 1

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

    def _device(self) -> psutil.Process:
        found = [
            process
            for process in psutil.Process().children()
            if str(self.site.config) in _words_of(process) and "run" in _words_of(process)
        ]
        assert len(found) == 1, f"{len(found)} devices run"
        return found[0]

    def _processes(self) -> list[psutil.Process]:
        return self._device().children()


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
