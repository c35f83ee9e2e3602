"""What a receiver costs: processor time and memory of a process and those that it has started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5): the peak becomes what is resident now


def cpu_s(pid: int) -> float:
    """Return user and system time of the living tree and of all that it has waited for."""
    return sum(_ticks(each) for each in _tree(pid)) / _TICKS_A_SECOND


def peak_rss_bytes(pid: int) -> int:
    """Return the highest peak of one process in the tree (VmHWM, proc_pid_status(5))."""
    return max((_peak_bytes(each) for each in _tree(pid)), default=0)


def reset_peak(pid: int) -> None:
    """Forget the peak so far; where the kernel does not, the peak counts from the start."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text("ascii").split():
                yield from _tree(int(child))


def _ticks(pid: int) -> int:
    """Fields 14 to 17 of proc_pid_stat(5): its own, and of children that are gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15])
    return 0


def _peak_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
