"""Faults at system calls of a running process, by strace(1): no hook in the product is needed.

A ``Step`` is one system call that changes what is durable or what the peer hears. ``record``
watches what a thread does; ``inject`` lets one of these steps fail, or kills the process as it
enters it: the call of before is done, this one never happens.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulators.waiting import wait_until

_WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate")
SYNCS = ("fdatasync", "fsync", "sync_file_range", "syncfs")
"""Calls that change nothing but what a power failure leaves."""
_NAMES = (
    "open",
    "openat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
)
_SENDS = ("sendto", "sendmsg")
# A name that this architecture's kernel lacks is passed over (strace(1): "?").
_CALLS = ",".join(f"?{name}" for name in (*_WRITES, *SYNCS, *_NAMES, *_SENDS))
# With the paths of descriptors and the process's number, without a byte of what is written.
_FORMAT = ("-yy", "-s", "0", "-e", f"trace={_CALLS}")
_CALL = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)")
_READS_ONLY = re.compile(r"O_RDONLY(?!.*O_CREAT)")
_ATTACHES_S = 20.0
_ENDS_S = 20.0


def why_not() -> str | None:
    """Why no fault can be injected here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            with _attached(stranger.pid, (), Path(os.devnull)):
                return None
        except AssertionError:
            return "this machine does not let us trace other processes (kernel.yama.ptrace_scope)"
        finally:
            stranger.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One system call of a thread, counted from when watching began."""

    thread: int
    """Index among the threads of the process, the oldest first."""
    call: str
    count: int
    """The how many-th of this call in this thread."""
    on: str
    """What it works on: wal, database, incoming file, journal, shard file, socket, log, ..."""

    @property
    def is_on_disk(self) -> bool:
        """It changes the device's state."""
        return self.on not in _NO_STATE

    def __str__(self) -> str:
        """In words."""
        return f"{self.call} #{self.count} on {self.on}"


def threads_of(pid: int) -> list[int]:
    """The thread ids of a process, the oldest first.

    The kernel lists them so (proc_pid_task(5)); by number they are in no order, since numbers are
    used again.
    """
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208  the order counts


@contextlib.contextmanager
def record(pid: int, folder: Path, *, from_thread: int) -> Iterator[list[Step]]:
    """Watch a process; the list is filled when the block has ended.

    Threads before ``from_thread`` do other things, now and then, and are left out.
    """
    steps: list[Step] = []
    threads = threads_of(pid)
    output = folder / "recorded.strace"
    with _attached(pid, ("-f",), output):
        yield steps
    steps += _read_steps(output, threads[from_thread:], first=from_thread)


@contextlib.contextmanager
def inject(pid: int, step: Step, action: str, folder: Path) -> Iterator[Path]:
    """Let ``action`` happen at a step: ``signal=SIGKILL``, ``error=ENOSPC``.

    Yields strace's record; the line of an injected error says so, see ``was_injected``.
    """
    thread_id = threads_of(pid)[step.thread]
    what = f"inject={step.call}:{action}:when={step.count}"
    output = folder / "injected.strace"
    with _attached(thread_id, ("-e", what), output):
        yield output


@contextlib.contextmanager
def inject_on(
    pid: int, call: str, path: Path, action: str, folder: Path, *, count: int = 1
) -> Iterator[Path]:
    """Let ``action`` happen at one call on one file, in any thread; yields as ``inject``."""
    what = f"inject={call}:{action}:when={count}"
    output = folder / "injected.strace"
    options = ("-f", "-P", str(path), "-e", f"trace={call}", "-e", what)
    with _attached(pid, options, output):
        yield output


@contextlib.contextmanager
def failing(pid: int, calls: str, error: str, folder: Path) -> Iterator[None]:
    """Let every one of these calls fail in all threads until the block ends."""
    with _attached(pid, ("-f", "-e", f"inject={calls}:error={error}"), folder / "failing.strace"):
        yield


def was_injected(output: Path, on: str | None = None) -> bool:
    """Whether the fault has happened, by strace's record; ``on`` what, as in ``Step``, if asked."""
    lines = output.read_text("utf-8", "replace").splitlines()
    return any("(INJECTED)" in line and on in (None, _object(line)) for line in lines)


def _read_steps(output: Path, threads: Sequence[int], *, first: int = 0) -> list[Step]:
    steps = []
    counts: Counter[tuple[int, str]] = Counter()
    for line in output.read_text("utf-8", "replace").splitlines():
        call = _CALL.fullmatch(line)
        if call is None or int(call["thread"]) not in threads:
            continue
        thread, name = threads.index(int(call["thread"])) + first, call["name"]
        counts[thread, name] += 1
        if not (name in _NAMES and _READS_ONLY.search(call["arguments"])):
            on = _object(call["arguments"])
            steps.append(Step(thread=thread, call=name, count=counts[thread, name], on=on))
    return steps


@contextlib.contextmanager
def _attached(task: int, options: Sequence[str], output: Path) -> Iterator[None]:
    """Run strace on a process or thread until the block ends or the process does."""
    said: list[str] = []
    with subprocess.Popen(
        ["strace", *_FORMAT, *options, "-o", output, "-p", str(task)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = process.stderr

        def read() -> None:
            for line in lines:
                said.append(line)  # noqa: PERF402  who waits must see each at once

        reader = threading.Thread(target=read, name="strace-reader")
        reader.start()
        try:
            wait_until(
                lambda: any("attached" in line for line in said) or process.poll() is not None,
                _ATTACHES_S,
            )
            assert process.poll() is None, f"strace ended: {said}"
            yield
        finally:
            process.terminate()  # it detaches; the process goes on
            process.wait(_ENDS_S)
            reader.join()


_OBJECTS = (
    (re.compile(r"<(TCP|UNIX|socket)"), "socket"),
    (re.compile(r"<anon_inode:"), "wake-up"),
    (re.compile(r"triage\.db-wal"), "wal"),
    (re.compile(r"triage\.db-shm"), "shm"),
    (re.compile(r"triage\.db"), "database"),
    (re.compile(r"spool/incoming/"), "incoming file"),
    (re.compile(r"spool/incoming"), "incoming folder"),
    (re.compile(r"spool/quarantine"), "quarantine"),
    (re.compile(r"spool/journal"), "journal"),
    (re.compile(r"spool/[0-9a-f]{2}/"), "shard file"),
    (re.compile(r"spool/[0-9a-f]{2}\b"), "shard folder"),
    (re.compile(r"node\.log"), "log"),
    (re.compile(r"/state/spool"), "spool"),
    (re.compile(r"/state/"), "state"),
)
_NO_STATE = frozenset({"socket", "wake-up", "log", "other"})


def _object(arguments: str) -> str:
    for pattern, name in _OBJECTS:
        if pattern.search(arguments):
            return name
    return "other"
