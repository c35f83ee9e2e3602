"""On what a figure was measured: the machine, its software, and what else it was doing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine as a reader of figures needs to know it."""

    cpu: str
    cores: int
    """That this process may use."""
    memory_mb: int
    kernel: str
    python: str
    onnxruntime: str
    release: str
    load_average: tuple[float, float, float]
    """Runnable processes over 1, 5 and 15 minutes, before the measurement."""


def describe_machine() -> Machine:
    """Ask the kernel and the installed packages."""
    return Machine(
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_mb=int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) * 1024 // 1_000_000,
        kernel=platform.release(),
        python=platform.python_version(),
        onnxruntime=_onnxruntime(),
        release=importlib.metadata.version("edge-triage"),
        load_average=os.getloadavg(),
    )


def _onnxruntime() -> str:
    """Of either distribution: both install the same package, and the one for a GPU wins."""
    for name, words in (("onnxruntime-gpu", " (GPU)"), ("onnxruntime", "")):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name) + words
    return "not installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessCost:
    """What a process has taken since it started."""

    peak_rss_bytes: int
    cpu_s: float


def read_cost(pid: int) -> ProcessCost:
    """Ask the kernel about another process (proc_pid_status(5), proc_pid_stat(5))."""
    folder = Path("/proc") / str(pid)
    times = (folder / "stat").read_text("utf-8").rpartition(")")[2].split()
    ticks = int(times[11]) + int(times[12])  # utime and stime, fields 14 and 15
    return ProcessCost(
        peak_rss_bytes=int(_field(folder / "status", "VmHWM").split()[0]) * 1024,
        cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
    )


def _field(file: Path, name: str) -> str:
    for line in file.read_text("utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
