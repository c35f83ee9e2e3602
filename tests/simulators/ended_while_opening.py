"""A device's start whose preferred engine ends the process, as a driver may.

``python -m simulators.ended_while_opening PACKAGE ENGINES`` writes one line for each engine that it
opens, with how many processes ended before, and one for each that was passed over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.choosing import Preference
from engines.contract import AcceleratorOptions, Backend, Engine, EngineOptions
from engines.going_live import open_live
from engines.loading import load_package

PREFERENCE = Preference(order=(Backend.TENSORRT, Backend.ONNXRUNTIME), may_fall_back=True)


def tell(**words: object) -> None:
    """Write one line at once: the next step may be the last."""
    os.write(sys.stdout.fileno(), json.dumps(words).encode() + b"\n")


def opens(backend: Backend, model: VerifiedFile, options: EngineOptions) -> Engine:
    """As ``open_engine``, where TensorRT ends the process."""
    assert options.accelerator is not None
    tell(opening=backend.value, ended=options.accelerator.processes_ended)
    if backend is Backend.TENSORRT:
        os.kill(os.getpid(), signal.SIGKILL)
    return open_engine(backend, model, options)


def main(package: Path, engines: Path) -> None:
    """Start once."""
    options = EngineOptions(accelerator=AcceleratorOptions(folder=engines))
    with open_live(load_package(package), PREFERENCE, options, opens=opens) as live:
        for each in live.passed_over:
            tell(passed_over=each.backend.value, obstacle=each.obstacle.value, detail=each.detail)
        tell(runs=live.engine.metadata.backend.value)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
