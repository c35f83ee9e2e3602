"""The machine: versions, clock, limits. Each check reads a value and judges it purely."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
from pathlib import Path

from edge_runtime.clock import is_clock_synced
from edge_runtime.config.settings import Settings
from edge_runtime.store.processes import Role
from tools.doctor.findings import Context, Finding, failed, fine, warning, worst
from tools.doctor.own_device import running_processes

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""

_FILES_PER_ASSOCIATION = 4
"""Socket, spool file, its folder while that is synced, and one to spare."""
_FILES_OF_A_PROCESS = 64
"""Libraries, database with WAL and shared memory, locks, logs."""
_MIB = 1024 * 1024
_PROCESSES_MIB = 600
"""Four processes with their libraries and a small model."""
_PDUS_PER_ASSOCIATION = 4
_UNLIMITED = "unlimited"


def check_python(_context: Context) -> Finding:
    """Is this a Python that we test with?"""
    return judge_python(platform.python_version_tuple())


def judge_python(version: tuple[str, str, str]) -> Finding:
    """Judge major, minor and patch."""
    found = ".".join(version)
    number = int(version[0]), int(version[1])
    if OLDEST_PYTHON <= number <= NEWEST_PYTHON:
        return fine(f"Python {found}")
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST_PYTHON, NEWEST_PYTHON))
    judge = failed if number < OLDEST_PYTHON else warning
    return judge(
        f"Python {found} is none that edge-triage is tested with",
        f"install edge-triage into a virtual environment of Python {oldest} to {newest}",
    )


def check_sqlite(_context: Context) -> Finding:
    """Does SQLite know what the schema uses?"""
    return judge_sqlite(sqlite3.sqlite_version_info)


def judge_sqlite(version: tuple[int, int, int]) -> Finding:
    """Judge the library's version."""
    found = ".".join(map(str, version))
    if version >= OLDEST_SQLITE:
        return fine(f"SQLite {found}")
    return failed(
        f"SQLite {found} has no STRICT tables, so the database cannot be made",
        "install a Python that is linked with SQLite 3.37 or later",
    )


def check_clock(_context: Context) -> Finding:
    """Does anything keep the wall clock right?"""
    return judge_clock(synced=is_clock_synced())


def judge_clock(*, synced: bool) -> Finding:
    """Judge what the kernel says."""
    if synced:
        return fine("the kernel says that the clock is synchronised")
    return warning(
        "the clock is not synchronised: the times in reports and in the worklist may be wrong",
        "install chrony or enable systemd-timesyncd, and give it the site's time server "
        "(`chronyc sources` or `timedatectl timesync-status` show whether it answers)",
    )


def check_limits(context: Context) -> Finding:
    """Do open files and memory suffice for as many associations as the settings allow?"""
    node = running_processes(context.settings).get(Role.NODE)
    return worst(
        [
            judge_open_files(
                _soft_limit_of(node.pid) if node else _own_soft_limit(),
                context.settings.node.max_associations,
            ),
            judge_memory(_memory_bytes(), context.settings),
        ]
    )


def judge_open_files(limit: int | None, max_associations: int) -> Finding:
    """Judge the soft limit of open files; None is no limit."""
    needed = _FILES_OF_A_PROCESS + _FILES_PER_ASSOCIATION * max_associations
    if limit is None or limit >= needed:
        return fine(f"{'any number of' if limit is None else limit} open files")
    return failed(
        f"{limit} open files are too few: node.max_associations = {max_associations} may need "
        f"{needed}, and a scanner would be refused in the middle of a study",
        f"raise the limit (`ulimit -n {needed}`, or LimitNOFILE={needed} in the systemd unit), or "
        "lower node.max_associations",
    )


def judge_memory(available_bytes: int, settings: Settings) -> Finding:
    """Judge the memory that the device may use."""
    buffers = settings.node.max_associations * settings.node.max_pdu_bytes * _PDUS_PER_ASSOCIATION
    needed_mib = _PROCESSES_MIB + settings.worker.prepared_cache_mib + buffers // _MIB
    available_mib = available_bytes // _MIB
    if available_mib >= needed_mib:
        return fine(f"{available_mib} MiB of memory")
    return warning(
        f"{available_mib} MiB of memory are fewer than the {needed_mib} MiB that the settings may "
        "take: the kernel may kill a process under load",
        "lower node.max_associations, node.max_pdu_bytes or worker.prepared_cache_mib, or give the "
        "device more memory",
    )


def _own_soft_limit() -> int | None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _soft_limit_of(pid: int) -> int | None:
    """The limit under which the running node works, which need not be that of this shell."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text("ascii").splitlines()
    except OSError:
        return _own_soft_limit()
    fields = next(line for line in lines if line.startswith("Max open files")).split()
    return None if fields[3] == _UNLIMITED else int(fields[3])


def _memory_bytes() -> int:
    """The machine's memory, or less where a control group holds us to less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        group = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
    except OSError:
        return machine
    return min(machine, int(group)) if group.isdigit() else machine
