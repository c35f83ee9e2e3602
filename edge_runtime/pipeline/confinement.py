"""Runs the checks of a package in a process of its own, with bounds on memory, time and files.

A model is foreign code to the libraries that read it: what makes one of them crash, hang or take
all memory must become a refusal, and must not take with it whoever asked. The process writes no
file, and its answers come as lines of JSON: nothing of it is unpickled. The bounds stop faults, not
code that runs: the libraries' own bugs stay theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edge_runtime.pipeline.answers import (
    OUT_OF_MEMORY_STATUS,
    Answer,
    CheckName,
    CheckStatus,
    Verification,
)
from engines.contract import Backend

_GIB = 1024**3
_LOOK_S = 0.02
_PROGRAM = "edge_runtime.pipeline.confined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the checks of one package may take."""

    memory_bytes: int = 8 * _GIB
    """Address space: the libraries themselves take one GiB, a model of the largest size six."""
    cpu_s: int = 900
    wall_s: float = 1800.0


def verify_confined(
    folder: Path,
    backend: Backend,
    *,
    threads: int = 1,
    bounds: Bounds | None = None,
    on_tick: Callable[[], None] = lambda: None,
) -> Verification:
    """Run every check of the package in ``folder`` in a process of its own.

    Args:
        folder: the package.
        backend: whose parity is checked.
        threads: of the engine.
        bounds: what the checks may take.
        on_tick: called again and again while they run.
    """
    bounds = bounds or Bounds()
    # -I: nothing of the folder or the environment is imported. -B: no file is written.
    command = [sys.executable, "-I", "-B", "-m", _PROGRAM, str(folder.absolute()), backend.value]
    limits = [str(threads), str(bounds.memory_bytes), str(bounds.cpu_s), str(os.getpid())]
    with (
        tempfile.TemporaryFile() as answers,
        subprocess.Popen(
            [*command, *limits],
            stdin=subprocess.DEVNULL,
            stdout=answers,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        ) as child,
    ):
        in_time = _wait(child, bounds.wall_s, on_tick)
        answers.seek(0)
        found = tuple(_read_answers(answers))
    reason = _how_it_ended(child.returncode, bounds) if in_time else "it took too long"
    return Verification(answers=tuple(_completed(found, reason)))


def _wait(child: subprocess.Popen[bytes], limit_s: float, on_tick: Callable[[], None]) -> bool:
    ends_s = time.monotonic() + limit_s
    try:
        while child.poll() is None:
            if time.monotonic() > ends_s:
                child.kill()
                child.wait()
                return False
            on_tick()
            time.sleep(_LOOK_S)
    except BaseException:
        child.kill()
        raise
    return True


def _read_answers(lines: IO[bytes]) -> Iterator[Answer]:
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):  # cut off in the middle
            told = json.loads(line)
            told |= {"name": CheckName(told["name"]), "status": CheckStatus(told["status"])}
            yield Answer(**told)


def _how_it_ended(status: int, bounds: Bounds) -> str | None:
    """Why the process did not finish; None when it did."""
    if status == 0:
        return None
    if status == OUT_OF_MEMORY_STATUS:
        return f"it took more than {bounds.memory_bytes // 1024**2} MiB of memory"
    if status == -signal.SIGXCPU:
        return f"it took more than {bounds.cpu_s} s"
    if status < 0:
        return f"it crashed (signal {-status})"
    return f"it broke down (status {status})"


def _completed(found: tuple[Answer, ...], reason: str | None) -> Iterator[Answer]:
    """Gives every check its answer: the process may have ended in the middle of one."""
    yield from found
    has_failed = bool(found) and found[-1].status is CheckStatus.FAILED
    for name in list(CheckName)[len(found) :]:
        if has_failed:
            yield Answer(name=name, status=CheckStatus.NOT_RUN, found="not run")
            continue
        has_failed = True
        yield Answer(
            name=name,
            status=CheckStatus.FAILED,
            found=f"the libraries could not check it: {reason or 'it ended too early'}",
            error="ModelFileError",
        )
