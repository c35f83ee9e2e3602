"""10,000 runs, and many loads, take nothing along: neither memory of the GPU nor of the process."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.contract import Backend, Engine, Precision
from engines.device.contract import Device
from engines.device.driver import find_driver
from engines.device.opening import open_device
from engines.errors import EngineError
from engines.golden import load_golden
from tools.gpu_check.peers import load_nvidia_libraries
from tools.gpu_check.rows import RowFile, Verdict
from tools.gpu_check.subjects import ALL_LIBRARIES, Subject, opened, packages

RUNS = 10_000
LOADS = 20

_FIRST_RUNS = 500
"""Until graphs are captured and caches are full."""
_MOST_LOST_BYTES = 8 * 1024**2
"""The driver hands memory out in pages of 2 MiB; others may use the GPU meanwhile."""
_MOST_GROWN_BYTES = 16 * 1024**2
_BACKENDS = (Backend.TENSORRT, Backend.TENSORRT_RTX, Backend.ONNXRUNTIME_CUDA)


def check(rows: RowFile, folder: Path) -> None:
    """Run and load each engine many times.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    find_driver()
    load_nvidia_libraries()
    package = packages()[0]
    # Open all the time: the driver's own memory comes and goes with the last user of the GPU.
    with open_device(ALL_LIBRARIES) as device:
        for backend in _BACKENDS:
            subject = Subject(package=package, backend=backend, precision=Precision.FP32)
            try:
                check_runs(rows, subject, device, folder)
                check_loads(rows, subject, device, folder)
            except EngineError as error:
                rows.add(subject.name, type(error).__name__, str(error), verdict=Verdict.FAILED)


def check_runs(
    rows: RowFile, subject: Subject, device: Device, folder: Path, *, runs: int = RUNS
) -> None:
    """Run an engine many times, one item and a few."""
    with opened(rows, subject, folder) as engine:
        if engine is None:
            return
        _run(engine, subject, min(_FIRST_RUNS, runs))
        before = _Held.now(device)
        _run(engine, subject, runs)
        taken = _Held.now(device).since(before)
    _tell(rows, subject, f"{runs:,} runs", taken, is_shared=device.info.is_integrated)


def check_loads(
    rows: RowFile, subject: Subject, device: Device, folder: Path, *, loads: int = LOADS
) -> None:
    """Load an engine and leave it, many times."""
    # The first loads fill what libraries keep for the process.
    for _ in range(3):
        with opened(rows, subject, folder) as engine:
            if engine is None:
                return
    before = _Held.now(device)
    for _ in range(loads):
        with opened(rows, subject, folder):
            pass
    taken = _Held.now(device).since(before)
    _tell(rows, subject, f"{loads} loads", taken, is_shared=device.info.is_integrated)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What is taken at one moment, or between two."""

    on_gpu: int
    by_process: int

    @classmethod
    def now(cls, device: Device) -> _Held:
        return cls(on_gpu=-device.memory().free_bytes, by_process=_resident_bytes())

    def since(self, before: _Held) -> _Held:
        return _Held(
            on_gpu=self.on_gpu - before.on_gpu, by_process=self.by_process - before.by_process
        )


def _resident_bytes() -> int:
    """What the process holds now (proc_pid_status(5))."""
    gc.collect()
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _run(engine: Engine, subject: Subject, runs: int) -> None:
    name = subject.package.manifest.input.name
    golden = load_golden(subject.package).inputs[name]
    batches = [np.ascontiguousarray(golden[:count]) for count in (1, 2, 4)]
    for number in range(runs):
        engine.run({name: batches[number % len(batches)]})


def _tell(rows: RowFile, subject: Subject, what: str, taken: _Held, *, is_shared: bool) -> None:
    told = f"{taken.on_gpu / 1e6:.1f} MB"
    if is_shared:
        # Every process moves what the processor shares.
        rows.add(subject.name, f"{what}: less free on the GPU", told)
    else:
        is_little = taken.on_gpu <= _MOST_LOST_BYTES
        rows.check(subject.name, f"{what} keep no memory of the GPU", is_little, told)
    rows.check(
        subject.name,
        f"{what} keep no memory of the process",
        taken.by_process <= _MOST_GROWN_BYTES,
        f"{taken.by_process / 1e6:.1f} MB",
    )
