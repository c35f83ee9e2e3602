"""A thread with a connection of its own, so that asyncio never waits for the disk.

Invariant: the connection is used by this thread only (``store.database``).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edge_runtime.store.database import connect

ResultT = TypeVar("ResultT")

_BUSY_TIMEOUT_MS = 1000  # a page must not keep the device from stopping within 2 s


class DatabaseThread:
    """Runs queries one after the other; a context manager that joins the thread on exit."""

    def __init__(self, path: Path, name: str, *, writes: bool = False) -> None:
        self._path = path
        self._writes = writes
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> DatabaseThread:
        self._connection = await asyncio.get_running_loop().run_in_executor(
            self._executor, self._open
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._connection.interrupt()
            self._executor.submit(self._connection.close)
        self._executor.shutdown(wait=True)

    async def run(self, query: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Run ``query`` on the thread and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._call, query)

    def _open(self) -> sqlite3.Connection:
        connection = connect(self._path)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        if not self._writes:
            connection.execute("PRAGMA query_only = ON")
        return connection

    def _call(self, query: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        if self._connection is None:
            raise RuntimeError("the thread has no connection: use it inside 'async with'")
        return query(self._connection)
