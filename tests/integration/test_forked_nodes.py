"""A node that the tests fork is what a node is that a supervisor starts.

By what the kernel says of both while they listen: what they have open and mapped, what signals do
to them, how many threads they have, what limits them.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simulators.forked_node import ForkedNode
from simulators.lone_node import LoneNode
from simulators.node_forks import ENTRY_POINT
from simulators.waiting import wait_until

# What proc_pid_status(5) calls them.
_SAME = ("SigBlk", "SigIgn", "SigCgt", "Threads", "NoNewPrivs", "Seccomp", "CapEff")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looks:
    status: dict[str, str]
    open_files: Counter[str]
    mapped_files: frozenset[str]
    limits: str
    folder: str


def _look(node: LoneNode, pid: int) -> _Looks:
    process = Path("/proc") / str(pid)
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    mapped = re.findall(r" (/\S+)$", (process / "maps").read_text(), re.MULTILINE)
    return _Looks(
        status={name: status[name].strip() for name in _SAME},
        open_files=Counter(
            _of_any(node, str(each.readlink())) for each in (process / "fd").iterdir()
        ),
        mapped_files=frozenset(_of_any(node, each) for each in mapped),
        limits=(process / "limits").read_text(),
        folder=str((process / "cwd").readlink()),
    )


def _of_any(node: LoneNode, name: str) -> str:
    """The name without what is another one in each node."""
    return re.sub(r"\d+", "N", name.replace(str(node.folder), "FOLDER"))


@contextlib.contextmanager
def _started(node: LoneNode) -> Iterator[int]:
    """The same in an interpreter of its own."""
    config = node.folder / "node.toml"
    config.write_text(node._settings_text(), encoding="utf-8")
    command = [sys.executable, "-m", "edge_runtime.process", "node", ENTRY_POINT, str(config)]
    with (
        node.log.open("ab") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: b'"node.listening"' in node.said())
            yield process.pid
        finally:
            process.kill()


def test_a_forked_node_has_and_heeds_what_a_started_one_does(tmp_path: Path) -> None:
    names = ("before", "forked", "started")
    before, forked, other = (LoneNode(folder=tmp_path / name) for name in names)
    for node in (before, forked, other):
        node.folder.mkdir()
    looks: list[_Looks] = []
    # Of the one before, the second has nothing.
    with before, forked, _started(other) as pid:

        def are_alike() -> bool:
            with contextlib.suppress(FileNotFoundError):  # it was closed while we looked
                looks[:] = _look(forked, forked.pid), _look(other, pid)
            return len(looks) == 2 and looks[0] == looks[1]

        # A sign of life opens a socket for a moment.
        with contextlib.suppress(AssertionError):
            wait_until(are_alike)
    ours, theirs = looks
    assert ours == theirs


def test_a_forked_node_that_is_killed_keeps_its_number_until_its_death_is_noted(
    tmp_path: Path,
) -> None:
    node = LoneNode(folder=tmp_path)
    assert node.start()
    process = Path("/proc") / str(node.pid)
    os.kill(node.pid, signal.SIGKILL)
    assert node._process is not None
    assert select.select([node._process], [], [], 30.0)[0]
    assert "\nState:\tZ" in (process / "status").read_text()
    assert node.wait_until_dead() == -signal.SIGKILL
    wait_until(lambda: not process.exists())


def test_a_forked_node_does_nothing_before_it_is_told_to_begin(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as log:
        waiting = ForkedNode(log)
    waiting.send_signal(signal.SIGTERM)  # nothing heeds it yet
    assert waiting.wait(30.0) == -signal.SIGTERM
    assert [each.name for each in tmp_path.iterdir()] == ["log"]
