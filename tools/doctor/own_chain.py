"""Reads the audit chain of the device that a settings file describes; changes nothing."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.config.settings import Settings
from edge_runtime.errors import StoreError
from edge_runtime.governance.chain import CHAIN_NAME, ReadChain, read_chain
from edge_runtime.process import audit_path, database_path
from edge_runtime.store.model_packages import AuditHead, read_audit_head
from tools.doctor.own_device import is_visible, read_database


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChain:
    """The chain, and what the database remembers of its end."""

    path: Path
    chain: ReadChain
    head: AuditHead | None


def read_device_chain(settings: Settings) -> DeviceChain:
    """Read the chain.

    Raises:
        AuditDamagedError: the file cannot be read.
        StoreError: the database cannot be read.
    """
    database = database_path(settings)
    head = None
    if is_visible(database):
        try:
            with read_database(database) as connection:
                head = _read_head(connection)  # before the chain, which is always ahead
        except sqlite3.Error as error:
            raise StoreError(f"{database} cannot be read: run `edge-triage doctor`") from error
    path = audit_path(settings) / CHAIN_NAME
    return DeviceChain(path=path, chain=read_chain(path, at_least=head), head=head)


def _read_head(connection: sqlite3.Connection) -> AuditHead | None:
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit_head'").fetchone()
    return read_audit_head(connection) if known else None
