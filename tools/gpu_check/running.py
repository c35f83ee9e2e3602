"""Runs each step in a process of its own, and ends it in time.

What talks to a driver can end its process, or hang: neither may take the other steps along.
Whatever becomes of a step, its rows end with how it ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from tools.gpu_check.rows import Row, Verdict, read_rows
from tools.gpu_check.steps import Step

Say: TypeAlias = Callable[[str], None]
CommandOf: TypeAlias = Callable[[Step, Path], Sequence[str]]

_TO_GO_S = 10.0
"""After SIGTERM, before SIGKILL."""


def step_command(step: Step, folder: Path) -> Sequence[str]:
    """How a step is started."""
    options = ("--step", step.name, "--out", str(folder))
    return [sys.executable, "-m", "tools.gpu_check", *options]


def run_steps(
    steps: Sequence[Step],
    folder: Path,
    *,
    limit_s: float,
    say: Say,
    command_of: CommandOf = step_command,
) -> tuple[Row, ...]:
    """Run steps one after the other.

    Args:
        steps: In order; a later one may use what an earlier one left in the folder.
        folder: Where rows and logs of each step lie.
        limit_s: Of one step.
        say: Told what happens.
        command_of: How a step is started.

    Returns:
        All rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for step in steps:
        say(f"==> {step.name}: {step.about}")
        found = _run(step, folder, command_of(step, folder), limit_s)
        rows += found
        for row in found:
            say(f"    {row.subject}: {row.what} {row.value} {row.verdict.value}".rstrip())
    return tuple(rows)


def _run(step: Step, folder: Path, command: Sequence[str], limit_s: float) -> list[Row]:
    rows_file, log_file = folder / f"{step.name}.jsonl", folder / f"{step.name}.log"
    rows_file.unlink(missing_ok=True)
    started = time.monotonic()
    with log_file.open("wb") as log:
        # A session of its own: what the step starts (a compiler) goes with it.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            ended = _how_it_ended(process.wait(limit_s))
        except subprocess.TimeoutExpired:
            _end(process)
            ended = f"did not end within {limit_s:.0f} s"
    found = list(read_rows(rows_file))
    took = f"{time.monotonic() - started:.1f} s"
    if ended or not found:
        why = f"{ended or 'found nothing'}; see {log_file.name}: {_last_line(log_file)}"
        found.append(
            Row(step=step.name, subject="step", what=took, value=why, verdict=Verdict.FAILED)
        )
    else:
        found.append(Row(step=step.name, subject="step", what="took", value=took))
    return found


def _how_it_ended(code: int) -> str:
    """Empty for a good end."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" if code else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_TO_GO_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it is empty")
