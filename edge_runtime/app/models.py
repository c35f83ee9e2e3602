"""The store of model packages, wired to the settings; and what the processes read of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import structlog

from edge_runtime.clock import Clock
from edge_runtime.config.settings import Settings
from edge_runtime.errors import EdgeTriageError, SettingsError
from edge_runtime.governance.configuration import CONFIGURATION, Missed, Wanted, hold
from edge_runtime.governance.decisions import ApprovalRules
from edge_runtime.governance.models import ModelStore, Verify
from edge_runtime.pipeline.errors import StopRequestedError
from edge_runtime.pipeline.packages import digest_of_folder, find_folder, read_manifest
from edge_runtime.process import audit_path, models_path
from edge_runtime.store.alarms import AlarmCode, clear_alarm, raise_alarm
from edge_runtime.store.database import transaction
from edge_runtime.store.model_packages import packages_in_use, packages_on_disk
from edge_runtime.store.worklist import data_version
from engines.errors import EngineUnavailableError, ModelEngineError, PackageError
from engines.package import ModelPackage

_log = structlog.get_logger()
ValueT = TypeVar("ValueT")


def open_store(
    settings: Settings,
    connection: sqlite3.Connection,
    clock: Clock,
    *,
    actor: str,
    verify: Verify,
) -> ModelStore:
    """Return the device's store; what is installed has to pass ``verify``."""
    return ModelStore(
        models=models_path(settings),
        audit=audit_path(settings),
        connection=connection,
        clock=clock,
        rules=approval_rules(settings),
        verify=verify,
        actor=actor,
        # What the settings ask for in vain is asked for at every start: log and alarm say so.
        records_denials=actor != CONFIGURATION,
    )


def approval_rules(settings: Settings) -> ApprovalRules:
    """Translate settings into those of governance."""
    return ApprovalRules(
        approvals_required=settings.models.approvals_required,
        shadow_first=settings.models.shadow_first,
    )


def hold_configured(
    settings: Settings,
    connection: sqlite3.Connection,
    clock: Clock,
    verify: Verify,
) -> None:
    """Make the store hold what the settings name; whatever fails, the device goes on.

    Raises:
        EngineUnavailableError: the back end of the settings is not installed.
        StopRequestedError: the device was told to stop while ``verify`` ran.
    """
    store = open_store(settings, connection, clock, actor=CONFIGURATION, verify=verify)
    wanted, missed = read_wanted(settings)
    for item in missed:
        _log.error("model.not_installed", model=item.label, remedy=item.remedy)
    try:
        missed += hold(store, wanted, is_complete=not missed)
    except (EngineUnavailableError, StopRequestedError):
        raise
    except (EdgeTriageError, ModelEngineError) as error:
        # The chain is damaged or the disk full: what is in use stays in use.
        _log.error("model.store_not_opened", remedy=str(error))
        missed += tuple(Missed(label=item.label, remedy=str(error)) for item in wanted)
    _tell(connection, clock, settings, missed)


def read_wanted(settings: Settings) -> tuple[tuple[Wanted, ...], tuple[Missed, ...]]:
    """Look up the packages that the settings name: those that can be read, and the others."""
    wanted: dict[str, Wanted] = {}
    missed: list[Missed] = []
    for path in settings.models.packages:
        found = _look_up(path)
        if isinstance(found, Missed):
            missed.append(found)
        elif found[0] in wanted:
            remedy = f"models.packages: two packages have the name {found[0]}; keep one of them"
            missed.append(Missed(label=path.name, remedy=remedy))
        else:
            wanted[found[0]] = found[1]
    return tuple(wanted.values()), tuple(missed)


def _look_up(path: Path) -> tuple[str, Wanted] | Missed:
    """Return the model's name and the package."""
    try:
        folder = find_folder(path)
        digest = digest_of_folder(folder)
        name = read_manifest(folder, digest).name
    except (SettingsError, PackageError) as error:
        return Missed(label=path.name, remedy=str(error))
    return name, Wanted(label=path.name, folder=folder, digest=digest)


def _tell(
    connection: sqlite3.Connection, clock: Clock, settings: Settings, missed: tuple[Missed, ...]
) -> None:
    labels = {item.label for item in missed}
    with transaction(connection):
        for path in settings.models.packages:
            if path.name in labels:
                raise_alarm(connection, AlarmCode.MODEL_REFUSED, clock.now(), subject=path.name)
            else:
                clear_alarm(connection, AlarmCode.MODEL_REFUSED, path.name, clock.now())


class Changes:
    """Says whether what ``read`` returns has become another; cheap to ask."""

    def __init__(
        self, connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], object]
    ) -> None:
        """``connection`` is one whose own commits are not looked for."""
        self._connection = connection
        self._read = read
        self._version = data_version(connection)
        self._value = read(connection)

    def have_come(self) -> bool:
        """Look again: True once for each change."""
        version = data_version(self._connection)
        if version == self._version:
            return False
        self._version = version
        value = self._read(self._connection)
        has_changed = value != self._value
        self._value = value
        return has_changed


class FollowedManifests(Mapping[str, ValueT]):
    """What a process needs of each active package, by the model's name.

    ``refresh`` belongs to one thread; others may read meanwhile.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        models: Path,
        translate: Callable[[ModelPackage], ValueT],
    ) -> None:
        self._connection = connection
        self._models = models
        self._translate = translate
        self._changes = Changes(connection, packages_in_use)
        self._values = self._read()

    def refresh(self) -> None:
        """Follow the store when it has changed."""
        if self._changes.have_come():
            self._values = self._read()

    def _read(self) -> dict[str, ValueT]:
        manifests = active_manifests(self._connection, self._models)
        return {name: self._translate(manifest) for name, manifest in manifests.items()}

    def __getitem__(self, name: str) -> ValueT:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def active_manifests(connection: sqlite3.Connection, models: Path) -> dict[str, ModelPackage]:
    """Return the packages that decide, by name."""
    return {
        used.name: manifest
        for used in packages_in_use(connection)
        if not used.is_shadow and (manifest := _known_manifest(models, used.digest)) is not None
    }


class KnownManifests(Mapping[tuple[str, str], ModelPackage]):
    """Every package that is here, by name and version: also those that decided before.

    ``refresh`` belongs to one thread; others may read meanwhile.
    """

    def __init__(self, connection: sqlite3.Connection, models: Path) -> None:
        self._connection = connection
        self._models = models
        self._manifests: dict[tuple[str, str], ModelPackage] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the store again."""
        found = {
            (name, version): _known_manifest(self._models, digest)
            for digest, name, version in packages_on_disk(self._connection)
        }
        self._manifests = {key: item for key, item in found.items() if item is not None}

    def __getitem__(self, key: tuple[str, str]) -> ModelPackage:
        return self._manifests[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._manifests)

    def __len__(self) -> int:
        return len(self._manifests)


def _known_manifest(models: Path, digest: str) -> ModelPackage | None:
    try:
        return read_manifest(models / digest, digest)
    except PackageError as error:
        _log.error("model.unreadable", remedy=str(error))
        return None
