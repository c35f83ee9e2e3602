"""Opens the device's database: WAL, foreign keys, every commit durable, numbered migrations.

Invariants: a connection belongs to one thread; every write happens inside ``transaction``, which
takes the write lock at once, so that a read that decides a write cannot go stale in between.
"""

from __future__ import annotations

import contextlib
import random
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edge_runtime.errors import SchemaTooNewError, StoreError

_BUSY_TIMEOUT_MS = 30_000  # a writer holds the lock for milliseconds; longer means a hung disk
_SWITCH_PAUSE_S = (0.001, 0.010)  # drawn anew each time, lest two keep step
_CACHE_KIB = 4096
_WAL_LIMIT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One forward step of the schema."""

    number: int
    name: str
    sql: str


def load_migrations() -> tuple[Migration, ...]:
    """Return the shipped migrations in order.

    Raises:
        StoreError: the numbers have a gap, which is a packaging fault.
    """
    found = []
    for entry in resources.files("edge_runtime.store").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name)
        if match:
            found.append(
                Migration(number=int(match[1]), name=match[2], sql=entry.read_text("utf-8"))
            )
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise StoreError("the migrations of this installation have a gap: install it again")
    return tuple(found)


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at ``path`` and bring its schema up to date.

    Raises:
        SchemaTooNewError: a later release wrote it.
        StoreError: it cannot be opened or is no database of ours.
    """
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, timeout=_BUSY_TIMEOUT_MS / 1000, check_same_thread=False
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(
            f"cannot open the database {path}: {error}. Check that its folder exists, belongs to "
            "the device's user and has room"
        ) from error
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    migrate(connection, load_migrations())


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a new database to WAL, however many processes open it in the same moment.

    The switch turns a read lock into an exclusive one. Two that do so would wait for each other
    for ever, so that SQLite fails at once there and does not ask its busy handler
    (https://www.sqlite.org/c3ref/busy_handler.html): the wait is ours.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while not _switched_to_write_ahead_log(connection, may_wait=time.monotonic() < deadline):
        time.sleep(random.uniform(*_SWITCH_PAUSE_S))  # noqa: S311 - spreads load, guards nothing


def _switched_to_write_ahead_log(connection: sqlite3.Connection, *, may_wait: bool) -> bool:
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Python 3.10 has no `sqlite_errorcode`; this is SQLite's text for SQLITE_BUSY.
        if may_wait and str(error) == "database is locked":
            return False
        raise
    return True


def migrate(connection: sqlite3.Connection, migrations: tuple[Migration, ...]) -> None:
    """Apply the migrations that the database has not seen, each in a transaction of its own."""
    version = _schema_version(connection)
    if version > len(migrations):
        raise SchemaTooNewError(
            f"the database has schema {version}, this release knows {len(migrations)}: "
            "install the release that wrote it, or a later one"
        )
    for migration in migrations[version:]:
        with transaction(connection):
            if _schema_version(connection) >= migration.number:
                continue  # another process was first
            for statement in split_statements(migration.sql):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {migration.number}")


def split_statements(sql: str) -> Iterator[str]:
    """Yield the statements of a script; ``executescript`` would commit in between."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def _schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run the body as one durable change, or as none.

    A COMMIT that fails may leave the transaction open, which would keep every other writer waiting
    and this connection from beginning another; or SQLite has rolled back itself, as it does when
    the disk is full (https://www.sqlite.org/lang_transaction.html, section 3).
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
