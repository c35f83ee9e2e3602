"""Plans are built for this GPU, kept, found again, and agree with the processor's reference."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from engines.backends import open_engine
from engines.contract import Backend, CudaLibrary, Engine, Precision
from engines.device.driver import find_driver
from engines.errors import EngineError
from engines.proving import LEAST_COSINE, ProofReport, prove
from tools.gpu_check.peers import load_nvidia_libraries
from tools.gpu_check.rows import RowFile, Verdict, number
from tools.gpu_check.subjects import Subject, open_or_tell, opened, subjects

_RANDOM_ITEMS = 256
_WITH_PLANS = (Backend.TENSORRT, Backend.TENSORRT_RTX)


def check(rows: RowFile, folder: Path) -> None:
    """Build, load and prove every combination.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    find_driver()
    load_nvidia_libraries()
    # What an earlier run built would be found.
    shutil.rmtree(folder / "plans", ignore_errors=True)
    for subject in subjects():
        check_subject(rows, subject, folder)
    # The plan is the same: only what copies and launches differs.
    for library in CudaLibrary:
        for subject in subjects((library,)):
            if subject.backend in _WITH_PLANS and subject.precision is Precision.FP32:
                with opened(rows, subject, folder) as engine:
                    if engine is not None:
                        _prove(rows, subject, folder, engine)


def check_subject(rows: RowFile, subject: Subject, folder: Path) -> None:
    """Load an engine twice, the second time from what the first one kept, and prove it."""
    started = time.perf_counter()
    engine = open_or_tell(rows, subject, folder)
    if engine is None:
        return
    rows.add(subject.name, "first load", f"{number(time.perf_counter() - started)} s")
    engine.__exit__(None, None, None)
    started = time.perf_counter()
    with opened(rows, subject, folder) as again:
        if again is None:
            return
        rows.add(subject.name, "second load", f"{number(time.perf_counter() - started)} s")
        _prove(rows, subject, folder, again)


def _prove(rows: RowFile, subject: Subject, folder: Path, engine: Engine) -> None:
    try:
        with open_engine(
            Backend.ONNXRUNTIME, subject.package.model, subject.options(folder)
        ) as reference:
            report = prove(
                engine,
                reference,
                subject.package,
                precision=subject.precision,
                random_items=_RANDOM_ITEMS,
            )
    except EngineError as error:
        rows.add(subject.name, type(error).__name__, str(error), verdict=Verdict.FAILED)
        return
    _tell(rows, subject, report)


def _tell(rows: RowFile, subject: Subject, report: ProofReport) -> None:
    items = report.golden_items + report.random_items
    rows.check(subject.name, f"agrees with the reference, {items} items", report.holds)
    rows.check(subject.name, "decides alike", report.flips == 0, f"{report.flips} flips")
    rows.add(subject.name, "largest deviation", number(report.max_absolute), is_key=True)
    least = LEAST_COSINE[subject.precision]
    rows.check(
        subject.name, f"cosine at least {least}", report.cosine >= least, f"{report.cosine:.9f}"
    )
