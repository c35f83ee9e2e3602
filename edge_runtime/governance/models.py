"""The device's store of model packages: what people and the settings can do with it.

Every method takes the audit chain, decides by ``decisions``, writes entries, and lets ``replay``
bring them about. Invariants:

* What the worker runs was verified on this device and has the approvals that were asked for.
* A package is on disk, whole and synced, before the chain says that it is installed; its files go
  after the chain has said so. What a crash leaves besides is swept at the next opening.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_runtime.clock import Clock
from edge_runtime.errors import BugError
from edge_runtime.governance.audit import AuditChain
from edge_runtime.governance.decisions import (
    ApprovalRules,
    approvals_missing,
    choose_for_approval,
    decide_activation,
    decide_approval,
    decide_installation,
    decide_retirement,
    decide_rollback,
    decide_shadow,
)
from edge_runtime.governance.errors import ArchiveError, ModelStoreError, NotAllowedError
from edge_runtime.governance.folders import PackageFolders
from edge_runtime.governance.records import (
    AuditRecord,
    Denied,
    Refused,
    Released,
    Verified,
    shorten,
)
from edge_runtime.model.model_package import PackageState
from edge_runtime.store.model_packages import StoredPackage, list_packages
from engines.errors import EngineError, EngineUnavailableError, PackageError
from engines.loading import LoadedPackage

Asked = Literal["install", "approve", "shadow", "activate", "rollback", "retire"]

_PATIENCE_S = 30.0
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How closely this device reproduces what the maker of a package saw."""

    backend: str
    largest_deviation: float


Verify = Callable[[Path], Proof]
"""Runs all checks of a package. Raises PackageError or EngineError when one fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What became of an installation."""

    package: StoredPackage
    was_there: bool
    """The same bytes were installed before; nothing was done."""


class ModelStore:
    """All model packages of one device."""

    def __init__(
        self,
        *,
        models: Path,
        audit: Path,
        connection: sqlite3.Connection,
        clock: Clock,
        rules: ApprovalRules,
        verify: Verify,
        actor: str,
        records_denials: bool = True,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """Take what the store works with.

        Args:
            models: folder of the packages.
            audit: folder of the audit chain.
            connection: the device's database.
            clock: what the entries' times are read from.
            rules: what the site's settings ask for.
            verify: runs all checks of a package.
            actor: stands in every entry.
            records_denials: whether the chain also says what was asked for in vain.
            patience_s: how long another writer is waited for.
        """
        self._folders = PackageFolders(models)
        self._audit = audit
        self._connection = connection
        self._clock = clock
        self._verify = verify
        self._actor = actor
        self._records_denials = records_denials
        self._patience_s = patience_s
        self._chain: AuditChain | None = None
        self.rules = rules

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Be the only one who changes anything, and finish what a crash left; may be nested.

        Raises:
            ModelStoreBusyError, AuditDamagedError, AuditWriteError: it cannot be.
            ModelStoreError: the disk refuses.
        """
        if self._chain is not None:
            yield
            return
        with AuditChain(
            self._audit, self._connection, self._clock, patience_s=self._patience_s
        ) as chain:
            self._chain = chain
            try:
                self._sweep()
                yield
            finally:
                self._chain = None

    def packages(self) -> tuple[StoredPackage, ...]:
        """Return every package that was ever installed."""
        return list_packages(self._connection)

    def install(self, source: Path) -> Installation:
        """Install a package from a folder or an archive, and verify it.

        Raises:
            ArchiveError, PackageError: it cannot be installed; the chain says so.
            NotAllowedError: its name and version belong to another package.
            EngineUnavailableError: nothing here can verify it; it stays installed.
            ModelStoreError: the disk refuses.
        """
        with self.opened(), self._denying("install", source.name or str(source)):
            with self._folders.unpacked(source) as loaded:
                was_there = self._take_in(loaded)
            package = self._package(loaded.digest)
            if package.state is PackageState.INSTALLED:
                self._prove(package.digest)
            return Installation(package=self._package(loaded.digest), was_there=was_there)

    def approve(self, reference: str, *, person: str, note: str) -> StoredPackage:
        """Record that a person approves a package.

        Raises:
            NotAllowedError: it does not wait for that, or not for that person.
        """
        with self.opened(), self._denying("approve", reference):
            package = choose_for_approval(self.packages(), reference)
            self._record(decide_approval(package, self.rules, person=person, note=note))
            return self._package(package.digest)

    def activate(self, reference: str) -> StoredPackage:
        """Make an approved package the version of its model that decides.

        Raises:
            NotAllowedError: something is missing that the rules ask for.
            ModelStoreError: its files were changed since it was verified.
            PackageError: this release of the software cannot use it.
        """
        with self.opened(), self._denying("activate", reference):
            return self._use(decide_activation(self.packages(), reference, self.rules))

    def shadow(self, reference: str) -> StoredPackage:
        """Let an approved package look at every study, without a word to anybody.

        Raises:
            NotAllowedError: something is missing that the rules ask for.
            ModelStoreError: its files were changed since it was verified.
            PackageError: this release of the software cannot use it.
        """
        with self.opened(), self._denying("shadow", reference):
            return self._use(decide_shadow(self.packages(), reference, self.rules))

    def rollback(self, name: str) -> StoredPackage:
        """Make the version of before active again.

        Raises:
            NotAllowedError: there is none.
            ModelStoreError: its files were changed since it was verified.
            PackageError: this release of the software cannot use it.
        """
        with self.opened(), self._denying("rollback", name):
            return self._use((decide_rollback(self.packages(), name),))

    def retire(self, reference: str) -> StoredPackage:
        """Take a package out of use.

        Raises:
            NotAllowedError: no such package is in use or waiting.
        """
        with self.opened(), self._denying("retire", reference):
            record = decide_retirement(self.packages(), reference)
            self._record(record)
            self._sweep()
            return self._package(record.digest)

    def restore_files(self, source: Path, digest: str) -> None:
        """Bring back the files of a known package that are not on disk any more.

        Raises:
            ArchiveError, PackageError: ``source`` cannot be used.
            ModelStoreError: it is another package, or the disk refuses.
        """
        with self.opened(), self._folders.unpacked(source) as loaded:
            if loaded.digest != digest:
                raise ModelStoreError(f"{source} changed while it was read: try again")
            self._folders.publish(loaded)

    def has_files(self, digest: str) -> bool:
        """Say whether a package's folder is there; not whether it is whole."""
        return self._folders.folder(digest).is_dir()

    def _take_in(self, loaded: LoadedPackage) -> bool:
        manifest = loaded.manifest
        record = decide_installation(
            self.packages(),
            digest=loaded.digest,
            name=manifest.name,
            version=manifest.version,
            demonstration=manifest.demonstration,
        )
        self._folders.publish(loaded)
        if record is not None:
            self._record(record)
        return record is None

    def _prove(self, digest: str) -> None:
        """Verify; what is no demonstration or has to be approved waits then for people."""
        try:
            proof = self._verify(self._folders.folder(digest))
        except EngineUnavailableError:
            raise
        except (PackageError, EngineError) as error:
            self._record(Refused(digest=digest, reason=shorten(str(error))))
            self._sweep()
            return
        self._record(
            Verified(
                digest=digest, backend=proof.backend, largest_deviation=proof.largest_deviation
            )
        )
        if not approvals_missing(self._package(digest), self.rules):
            self._record(Released(digest=digest))

    def _use(self, records: tuple[AuditRecord, ...]) -> StoredPackage:
        digest = getattr(records[-1], "digest", "")
        self._folders.load(digest)
        for record in records:
            self._record(record)
        self._sweep()
        return self._package(digest)

    @contextlib.contextmanager
    def _denying(self, asked: Asked, subject: str) -> Iterator[None]:
        """Record what was asked for and is not done."""
        try:
            yield
        except (NotAllowedError, ArchiveError, PackageError) as error:
            if not self._records_denials:
                raise
            shown = ascii(subject[:_SHOWN_CHARACTERS])[1:-1][:_SHOWN_CHARACTERS] or "(nothing)"
            self._record(Denied(asked=asked, subject=shown, reason=shorten(str(error))))
            raise

    def _record(self, record: AuditRecord) -> None:
        if self._chain is None:
            raise BugError("nothing is recorded outside of opened()")
        self._chain.record(record, actor=self._actor)

    def _sweep(self) -> None:
        known = {package.digest for package in self.packages() if not package.is_removed}
        self._folders.sweep(known)

    def _package(self, digest: str) -> StoredPackage:
        return next(item for item in self.packages() if item.digest == digest)
