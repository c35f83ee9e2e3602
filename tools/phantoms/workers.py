"""Processes that draw phantoms."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


@contextlib.contextmanager
def drawing_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes for drawing; they end with the context.

    The matrices of a slice are small: a second BLAS thread costs more than it brings, on a busy
    machine two thirds of the speed. NumPy reads the setting once, at its import, so that only a
    new process can have it; spawned ones inherit no threads of a parent's libraries either.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield pool
