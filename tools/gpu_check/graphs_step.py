"""CUDA graphs give what the same plan gives without them, and what they save."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.contract import Backend, Precision
from engines.device.contract import Device
from engines.device.driver import find_driver
from engines.device.opening import open_device
from engines.drawn_inputs import draw_inputs
from engines.errors import EngineError, EngineUnavailableError
from engines.golden import load_golden
from engines.loading import LoadedPackage
from engines.tensorrt.library import TensorRtLibrary, load_library
from engines.tensorrt.session import Session
from tools.gpu_check.bare_loop import built_plan
from tools.gpu_check.rows import RowFile, Verdict, number
from tools.gpu_check.subjects import ALL_LIBRARIES, MOST_ITEMS, packages

BATCHES = (1, 8, 32)

_MEMORY_BYTES = 4 << 30
_CALLS = 200
_MOST_DEVIATION = 1e-3
"""Another context of the library may choose other kernels; what is wrong is further off."""
_SEED = 13

Arrays = Mapping[str, NDArray[Any]]


def check(rows: RowFile, _folder: Path) -> None:
    """Compare every package, library and precision with graphs and without.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    find_driver()
    for backend in (Backend.TENSORRT, Backend.TENSORRT_RTX):
        try:
            library = load_library(backend)
        except EngineUnavailableError as error:
            rows.not_here(backend.value, str(error))
            continue
        for package in packages():
            for precision in Precision:
                subject = f"{package.folder.name}, {backend.value} {precision.value}"
                try:
                    plan = built_plan(library, package, precision)
                    with (
                        open_device(ALL_LIBRARIES) as device,
                        sessions(library, device, plan) as (plain, captured),
                    ):
                        check_sessions(rows, subject, package, plain, captured)
                except EngineError as error:
                    rows.add(subject, type(error).__name__, str(error), verdict=Verdict.FAILED)


@contextmanager
def sessions(
    library: TensorRtLibrary, device: Device, plan: bytes
) -> Iterator[tuple[Session, Session]]:
    """Open one plan twice: where nothing may be captured, and where everything may.

    Raises:
        EngineError: The library or the device refused.
    """
    with ExitStack() as stack:
        made = []
        for may_capture in (False, True):
            session = Session(
                library, device, plan, memory_bytes=_MEMORY_BYTES, may_capture=may_capture
            )
            stack.callback(session.close)
            made.append(session)
        yield made[0], made[1]


def check_sessions(
    rows: RowFile,
    subject: str,
    package: LoadedPackage,
    plain: Session,
    captured: Session,
    *,
    calls: int = _CALLS,
) -> None:
    """Run both on the same inputs, in several shapes."""
    rule = package.manifest.input
    golden = load_golden(package).inputs[rule.name]
    drawn = draw_inputs(golden, rule, count=2 * MOST_ITEMS, seed=_SEED)
    captured.warm_up()
    for batch in BATCHES:
        places = np.arange(batch)
        first, second = (
            {rule.name: np.ascontiguousarray(drawn[(places + start) % len(drawn)])}
            for start in (0, MOST_ITEMS)
        )
        name = f"{subject}, batch {batch}"
        _compare(rows, name, plain, captured, (first, second))
        times = [_median_ms(session, first, calls) for session in (plain, captured)]
        told = f"{number(times[0])} / {number(times[1])} ms, copies too"
        rows.add(name, "without / with graph", told)
    rows.check(subject, "calls became graphs", captured.graphs > 0, f"{captured.graphs} graphs")
    rows.check(subject, "none where none may", plain.graphs == 0)


def _compare(
    rows: RowFile, subject: str, plain: Session, captured: Session, given: tuple[Arrays, Arrays]
) -> None:
    is_same, off = True, 0.0
    # The same shape again and again: captured at the second call, replayed from then on, with other
    # content through the same addresses.
    for turn in range(6):
        wanted, found = (_run(session, given[turn % 2]) for session in (plain, captured))
        for name, array in wanted.items():
            is_same = is_same and np.array_equal(array, found[name])
            off = max(off, float(np.abs(array.astype(np.float64) - found[name]).max()))
    told = "same bits" if is_same else f"{off:.2g}"
    rows.check(subject, "a graph gives the same", off <= _MOST_DEVIATION, told)


def _run(session: Session, inputs: Arrays) -> Arrays:
    return session.begin(inputs, overlaps=False).outputs()


def _median_ms(session: Session, inputs: Arrays, calls: int) -> float:
    taken = []
    for _ in range(calls):
        started = time.perf_counter()
        _run(session, inputs)
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)
