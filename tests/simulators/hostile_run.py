"""Verifies the corpus of hostile packages in one process, under bounds and under watch.

Started as ``python -m simulators.hostile_run FOLDER``; prints one JSON object a package.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from edge_runtime.pipeline.answers import CheckStatus
from edge_runtime.pipeline.verification import run_checks
from engines.contract import Backend, EngineOptions
from simulators.hostile_packages import CORPUS, build
from simulators.model_package import write_model_package
from simulators.watch import Watch

MEMORY_BYTES = 3 * 1024**3
"""Address space; what is resident is much less."""
CPU_S = 5
"""Of processor time, for each package: whoever takes more is ended by the kernel."""


def _files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def _verified(folder: Path, watch: Watch) -> dict[str, object]:
    before = _files(folder.parent)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + CPU_S, most))
    watch.seen.clear()
    watch.is_on = True
    answers, escaped = [], None
    try:
        answers = list(run_checks(folder, Backend.ONNXRUNTIME, EngineOptions()))
    except BaseException as error:  # noqa: BLE001 - that it is none is what is tested
        escaped = type(error).__name__
    watch.is_on = False
    last = answers[-1] if answers else None
    return {
        "refused": last is not None and last.status is CheckStatus.FAILED,
        "error": last.error if last else None,
        "reason": last.found if last else None,
        "escaped": escaped,
        "seen": list(watch.seen),
        "is_untouched": _files(folder.parent) == before,
        "resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _tell(name: str, outcome: dict[str, object]) -> None:
    sys.stdout.write(json.dumps({"name": name, **outcome}) + "\n")


def main(root: Path) -> None:
    """Build and verify the good package, and each of the corpus, below ``root``."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    watch = Watch()
    good = root / "good" / "package"
    write_model_package(good)
    _tell("good", _verified(good, watch))
    for number, package in enumerate(CORPUS):
        folder = root / str(number) / "package"
        folder.parent.mkdir()
        os.chdir(folder.parent)  # where a payload would leave its mark
        build(package, good, folder)
        _tell(package.name, _verified(folder, watch))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
