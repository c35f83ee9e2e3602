"""What the subcommands share: the device's store, and a package as people and scripts see it."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from edge_runtime.app.models import open_store
from edge_runtime.app.verification import verifier
from edge_runtime.clock import SystemClock
from edge_runtime.config.loading import load_settings
from edge_runtime.errors import DeviceFaultError
from edge_runtime.governance.decisions import ApprovalRules, approvals_missing, approvals_needed
from edge_runtime.governance.models import ModelStore
from edge_runtime.model.model_package import PackageState
from edge_runtime.process import database_path
from edge_runtime.store.database import connect
from edge_runtime.store.model_packages import StoredPackage

SHORT_DIGITS = 12


def current_actor() -> str:
    """Return who runs this command: the account of the operating system, also behind sudo."""
    account = _account(os.getuid())
    behind = os.environ.get("SUDO_UID", "")
    if behind.isascii() and behind.isdigit():
        return f"user {_account(int(behind))} as {account}"
    return f"user {account}"


def _account(number: int) -> str:
    try:
        return ascii(pwd.getpwuid(number).pw_name)[1:-1][:64]
    except KeyError:
        return f"number {number}"


@contextlib.contextmanager
def opened_store(config: Path, *, may_be_new: bool = False) -> Iterator[ModelStore]:
    """Open the store of the device that ``config`` describes.

    ``may_be_new``: the device need not have run yet.

    Raises:
        EdgeTriageError: the settings or the database cannot be used.
    """
    settings = load_settings(config)
    path = database_path(settings)
    if may_be_new:
        _make_folder(settings.device.state_dir)
    elif not path.is_file():
        raise DeviceFaultError(f"{path} does not exist: has the device run with this config?")
    with contextlib.closing(connect(path)) as connection:
        yield open_store(
            settings,
            connection,
            SystemClock(),
            actor=current_actor(),
            verify=verifier(settings.engine),
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeviceFaultError(
            f"{folder} cannot be made ({error.strerror}): run this as the user that runs the device"
        ) from error


def package_json(package: StoredPackage, rules: ApprovalRules) -> dict[str, object]:
    """Return all that the device knows of a package."""
    return {
        "name": package.name,
        "version": package.version,
        "digest": package.digest,
        "state": package.state.value,
        "demonstration": package.demonstration,
        "refusal": package.refusal or None,
        "fallback": package.is_fallback,
        "on_disk": not package.is_removed,
        "installed": iso(package.installed_wall_us),
        "changed": iso(package.moved_wall_us),
        "changed_by": package.moved_by,
        "approvals_needed": approvals_needed(package, rules),
        "approvals": [
            {
                "person": approval.person,
                "note": approval.note or None,
                "account": approval.account,
                "time": iso(approval.wall_us),
            }
            for approval in package.approvals
        ],
        "waits_for": waits_for(package, rules) or None,
    }


def waits_for(package: StoredPackage, rules: ApprovalRules) -> str:
    """Say what has to be done before a package is used; empty where nothing has."""
    name = f"{package.name}@{package.version}"
    missing = approvals_missing(package, rules)
    if package.state is PackageState.INSTALLED:
        return "verification: install it again"
    if package.state is PackageState.VERIFIED and missing:
        who = "approval" if missing == 1 else "approvals"
        return f'{missing} {who}: edge-triage models approve {name} --person "NAME"'
    if package.state in {PackageState.VERIFIED, PackageState.APPROVED}:
        return f"activation: edge-triage models activate {name}"
    return ""


def iso(wall_us: int) -> str:
    """Return a moment in UTC."""
    moment = datetime.fromtimestamp(wall_us / 1_000_000, tz=timezone.utc)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
