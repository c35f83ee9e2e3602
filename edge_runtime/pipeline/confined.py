"""The process that ``edge_runtime.pipeline.confinement`` starts: checks one package, within bounds.

Its answers are lines of JSON on standard output, one as soon as each check has ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from edge_runtime.pipeline.answers import OUT_OF_MEMORY_STATUS, Answer, CheckName, CheckStatus
from edge_runtime.pipeline.verification import run_checks
from engines.contract import Backend, EngineOptions

_PR_SET_PDEATHSIG = 1
_ANSWER_BYTES = 1024**2
"""Of all answers together; no file of the process becomes larger."""


def main(arguments: list[str]) -> int:
    """Check the package that the command line names, within its bounds."""
    folder, backend, threads, memory_bytes, cpu_s, parent = arguments
    if not _dies_with(int(parent)):
        return 1
    # Libraries may write what they like to standard output; the answers have it for themselves.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        _confine(int(memory_bytes), int(cpu_s))
        told = 0
        try:
            options = EngineOptions(intra_op_threads=int(threads))
            for answer in run_checks(Path(folder), Backend(backend), options):
                answers.write(json.dumps(asdict(answer)) + "\n")
                answers.flush()
                told += 1
        except MemoryError:
            return OUT_OF_MEMORY_STATUS
        # The end of the process: what is no refusal is a bug of ours, and is told as one.
        except Exception as error:  # noqa: BLE001 - see above
            answers.write(json.dumps(asdict(_bug(list(CheckName)[told], error))) + "\n")
    return 0


def _dies_with(parent: int) -> bool:
    """Nobody waits for answers once the parent is gone; False when it is already (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def _bug(name: CheckName, error: Exception) -> Answer:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return Answer(
        name=name,
        status=CheckStatus.FAILED,
        found=f"the check itself broke ({type(error).__name__} in {place}); please report it",
        error=type(error).__name__,
    )


def _confine(memory_bytes: int, cpu_s: int) -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, _ANSWER_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard < 0 else min(limit, hard), hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
