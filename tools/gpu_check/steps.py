"""The table of steps, in their order.

A step takes the file for its rows and the folder of the whole run. It may raise: what it needs and
does not find (``EngineUnavailableError``, ``DeviceUnavailableError``) is a row that says so,
anything else a failure.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.errors import DeviceUnavailableError, EngineUnavailableError
from tools.gpu_check.rows import RowFile, Verdict

StepFunction = Callable[[RowFile, Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One part of the check; modules are imported in the step's process only."""

    name: str
    about: str
    module: str


STEPS = (
    Step(name="machine", about="which GPU, driver and libraries", module="machine"),
    Step(name="device", about="the device contract, by each CUDA library", module="device"),
    Step(name="ceilings", about="memory bandwidth and arithmetic rate", module="ceilings"),
    Step(name="engines", about="plans are built and agree with the reference", module="engines"),
    Step(name="int8", about="a model with Q/DQ nodes agrees with the reference", module="int8"),
    Step(name="graphs", about="CUDA graphs replay what was captured", module="graphs"),
    Step(name="kernel", about="the fused kernel equals the NumPy steps", module="kernel"),
    Step(name="staged", about="the kernel's output is the engine's input", module="staged"),
    Step(name="leaks", about="10,000 runs take nothing along", module="leaks"),
    Step(name="speed", about="latency and throughput beside peers", module="speed"),
    Step(name="faults", about="a kernel that fails is told and ends nothing", module="faults"),
)


def run_step(name: str, folder: Path) -> int:
    """Run one step in this process.

    Returns:
        An exit code: 0 unless something happened that no step foresees.
    """
    rows = RowFile(folder / f"{name}.jsonl", name)
    (step,) = (step for step in STEPS if step.name == name)
    try:
        module = importlib.import_module(f"tools.gpu_check.{step.module}_step")
        function: StepFunction = module.check
        function(rows, folder)
    except (EngineUnavailableError, DeviceUnavailableError) as error:
        rows.not_here("GPU", str(error))
    # The boundary of a step: whatever went wrong is a row, and the next step runs.
    except Exception as error:  # noqa: BLE001 - see above
        traceback.print_exc()
        rows.add("step", type(error).__name__, str(error), verdict=Verdict.FAILED)
        return 1
    return 0
