"""A device's store of model packages without the device: releases to install, and who acts."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edge_runtime.governance.audit import AuditChain
from edge_runtime.governance.chain import CHAIN_NAME, AuditEntry, ReadChain, read_chain
from edge_runtime.governance.decisions import ApprovalRules
from edge_runtime.governance.models import ModelStore, Verify
from edge_runtime.model.model_package import PackageState
from edge_runtime.store.database import connect
from edge_runtime.store.model_packages import (
    StoredPackage,
    list_packages,
    packages_in_use,
    read_audit_head,
)
from simulators.hand_clock import HandClock
from simulators.released_package import believe, write_release


class StoreBench:
    """One store in a folder, opened again at will, as after a crash."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.models = folder / "models"
        self.audit = folder / "audit"
        self.clock = HandClock()
        self.connection = connect(folder / "triage.db")
        self.store = self.open_store()

    def close(self) -> None:
        self.connection.close()

    def open_store(
        self,
        *,
        approvals: int = 0,
        shadow_first: bool = False,
        verify: Verify = believe,
        actor: str = "user tests",
        patience_s: float = 10.0,
    ) -> ModelStore:
        self.store = ModelStore(
            models=self.models,
            audit=self.audit,
            connection=self.connection,
            clock=self.clock,
            rules=ApprovalRules(approvals_required=approvals, shadow_first=shadow_first),
            verify=verify,
            actor=actor,
            records_denials=actor != "configuration",
            patience_s=patience_s,
        )
        return self.store

    def release(self, version: str, *, name: str = "bright", demonstration: bool = True) -> Path:
        """Write a release, as its maker does."""
        folder = self.folder / "makers" / f"{name}-{version}"
        if not folder.exists():
            write_release(folder, version, name=name, demonstration=demonstration)
        return folder

    def run(self, version: str, *, name: str = "bright") -> StoredPackage:
        """Install and activate a release."""
        self.store.install(self.release(version, name=name))
        return self.store.activate(f"{name}@{version}")

    def state_of(self, version: str, *, name: str = "bright") -> PackageState:
        return self.package(version, name=name).state

    def package(self, version: str, *, name: str = "bright") -> StoredPackage:
        (found,) = (
            item
            for item in list_packages(self.connection)
            if (item.name, item.version) == (name, version)
        )
        return found

    def active(self) -> list[str]:
        """Versions that decide."""
        known = {item.digest: item.version for item in list_packages(self.connection)}
        return [known[item.digest] for item in packages_in_use(self.connection)]

    def on_disk(self) -> set[str]:
        return {path.name for path in self.models.iterdir()} if self.models.exists() else set()

    def chain(self) -> ReadChain:
        head = read_audit_head(self.connection)
        return read_chain(self.audit / CHAIN_NAME, at_least=head)

    def actions(self) -> list[str]:
        return [entry.record.action for entry in self.chain().entries]

    def last_entry(self) -> AuditEntry:
        return self.chain().entries[-1]

    def opened_chain(self) -> contextlib.AbstractContextManager[AuditChain]:
        return AuditChain(self.audit, self.connection, self.clock, patience_s=0.0)
