"""What is looked at: the shipped packages, by each engine that a GPU can run, in each precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.backends import open_engine
from engines.contract import (
    AcceleratorOptions,
    Backend,
    CudaLibrary,
    Engine,
    EngineOptions,
    Precision,
)
from engines.errors import EngineError, EngineUnavailableError
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages
from tools.gpu_check.rows import RowFile, Verdict

REFERENCE_THREADS = 4
"""Of the processor's engine: it only has to be done in time."""

MOST_ITEMS = 32
"""Of one batch: AcceleratorOptions' own."""

COMBINATIONS = (
    (Backend.TENSORRT, Precision.FP32),
    (Backend.TENSORRT, Precision.FP16),
    (Backend.TENSORRT_RTX, Precision.FP32),
    (Backend.TENSORRT_RTX, Precision.FP16),
    (Backend.ONNXRUNTIME_CUDA, Precision.FP32),
    (Backend.ONNXRUNTIME_TENSORRT, Precision.FP32),
    (Backend.ONNXRUNTIME_TENSORRT, Precision.FP16),
)
ALL_LIBRARIES = (CudaLibrary.PYCUDA, CudaLibrary.CUDA_BINDINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One package, by one engine, in one precision."""

    package: LoadedPackage
    backend: Backend
    precision: Precision
    libraries: tuple[CudaLibrary, ...] = ALL_LIBRARIES

    @property
    def name(self) -> str:
        """For the table."""
        by = f" by {self.libraries[0].value}" if self.libraries != ALL_LIBRARIES else ""
        return f"{self.package.folder.name}, {self.backend.value} {self.precision.value}{by}"

    def options(self, folder: Path) -> EngineOptions:
        """How the engine may use the machine; plans lie in the folder."""
        return EngineOptions(
            intra_op_threads=REFERENCE_THREADS,
            accelerator=AcceleratorOptions(
                folder=folder / "plans",
                precision=self.precision,
                libraries=self.libraries,
                most_items=MOST_ITEMS,
            ),
        )


def packages() -> tuple[LoadedPackage, ...]:
    """The shipped ones."""
    return tuple(load_package(folder) for folder in shipped_packages().values())


def subjects(libraries: tuple[CudaLibrary, ...] = ALL_LIBRARIES) -> tuple[Subject, ...]:
    """Every combination, whether it is here or not."""
    return tuple(
        Subject(package=package, backend=backend, precision=precision, libraries=libraries)
        for package in packages()
        for backend, precision in COMBINATIONS
    )


@contextmanager
def opened(rows: RowFile, subject: Subject, folder: Path) -> Iterator[Engine | None]:
    """Load a subject's engine; None, and a row that says why, where it is not here or fails."""
    engine = open_or_tell(rows, subject, folder)
    if engine is None:
        yield None
        return
    try:
        yield engine
    finally:
        engine.__exit__(None, None, None)


def open_or_tell(rows: RowFile, subject: Subject, folder: Path) -> Engine | None:
    """Load a subject's engine, which the caller leaves."""
    try:
        engine = open_engine(subject.backend, subject.package.model, subject.options(folder))
        return engine.__enter__()
    except EngineUnavailableError as error:
        rows.not_here(subject.name, str(error))
    except EngineError as error:
        rows.add(subject.name, type(error).__name__, str(error), verdict=Verdict.FAILED)
    return None
