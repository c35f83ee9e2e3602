"""Makes the store hold the packages that the settings name, as far as that takes no person.

What the settings brought into use, they also take out of it. What a person did stays as the person
left it: a package that was retired, rolled back or refused does not come back by a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from edge_runtime.governance.decisions import approvals_needed
from edge_runtime.governance.errors import ArchiveError, ModelStoreError, NotAllowedError
from edge_runtime.governance.models import ModelStore
from edge_runtime.model.model_package import IN_USE, PackageState
from edge_runtime.store.model_packages import StoredPackage
from engines.errors import EngineUnavailableError, ModelEngineError

_log = structlog.get_logger()

CONFIGURATION = "configuration"
"""The actor of what is done because the settings say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A package that the settings name."""

    label: str
    """As the settings call it, without its folder."""
    folder: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A package that the settings name and that is not in use, through its own fault."""

    label: str
    remedy: str


def hold(store: ModelStore, wanted: Sequence[Wanted], *, is_complete: bool) -> tuple[Missed, ...]:
    """Install, verify and activate what the settings name; retire what they name no longer.

    ``is_complete``: every package that the settings name could be read, so that the others may go.

    Raises:
        ModelStoreBusyError, AuditDamagedError, AuditWriteError: nothing can be changed now.
        EngineUnavailableError: the back end of the settings is not installed.
    """
    missed: list[Missed] = []
    with store.opened():
        for item in wanted:
            missed += _try_to_hold(store, item)
        if is_complete and not missed:
            _retire_others(store, wanted)
    return tuple(missed)


def _try_to_hold(store: ModelStore, item: Wanted) -> tuple[Missed, ...]:
    try:
        _hold_one(store, item)
    except EngineUnavailableError:
        raise
    except (NotAllowedError, ArchiveError, ModelStoreError, ModelEngineError) as error:
        _log.error("model.not_installed", model=item.label, remedy=str(error))
        return (Missed(label=item.label, remedy=str(error)),)
    return ()


def _hold_one(store: ModelStore, item: Wanted) -> None:
    package = _find(store, item.digest)
    if package is None or _begins_anew(package) or package.state is PackageState.INSTALLED:
        package = store.install(item.folder).package
    elif package.state in IN_USE and not store.has_files(item.digest):
        store.restore_files(item.folder, item.digest)
    if package.state is PackageState.REFUSED:
        raise ModelStoreError(
            f"{package.name} {package.version} was refused: {package.refusal}. Install another "
            "release of it, or try again with `edge-triage models install`"
        )
    if package.state in {PackageState.VERIFIED, PackageState.APPROVED}:
        _start(store, package)


def _begins_anew(package: StoredPackage) -> bool:
    return package.state is PackageState.RETIRED and package.moved_by == CONFIGURATION


def _start(store: ModelStore, package: StoredPackage) -> None:
    if approvals_needed(package, store.rules):
        _log.warning("model.waits_for_people", model=package.name, version=package.version)
        return
    replaces = any(
        other.name == package.name and other.state is PackageState.ACTIVE
        for other in store.packages()
    )
    if replaces and store.rules.shadow_first:
        store.shadow(package.digest)
    else:
        store.activate(package.digest)


def _retire_others(store: ModelStore, wanted: Sequence[Wanted]) -> None:
    digests = {item.digest for item in wanted}
    names = {package.name for package in store.packages() if package.digest in digests}
    for package in store.packages():
        if (
            package.state in IN_USE
            and package.moved_by == CONFIGURATION
            and package.name not in names
        ):
            store.retire(package.digest)


def _find(store: ModelStore, digest: str) -> StoredPackage | None:
    return next((item for item in store.packages() if item.digest == digest), None)
