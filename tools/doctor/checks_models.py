"""Are model packages what their makers sealed, reproduced by this machine, and in use?"""

from __future__ import annotations

import sqlite3
from collections import Counter
from functools import partial
from pathlib import Path

from edge_runtime.app.models import approval_rules
from edge_runtime.config.settings import Settings
from edge_runtime.errors import SettingsError, StoreError
from edge_runtime.governance.errors import AuditDamagedError
from edge_runtime.model.model_package import IN_USE, PackageState
from edge_runtime.pipeline.models import preference_of
from edge_runtime.pipeline.packages import find_packages
from edge_runtime.process import database_path, models_path
from edge_runtime.store.model_packages import StoredPackage, list_packages
from engines.choosing import PassedOver
from engines.errors import (
    EngineError,
    EngineNotBuiltError,
    EngineUnavailableError,
    ModelEngineError,
    PackageError,
    PackageIntegrityError,
)
from engines.going_live import open_live
from engines.loading import LoadedPackage, load_package
from engines.trials import Asker
from tools.doctor.checks_engines import options_without_building
from tools.doctor.findings import Check, Context, Finding, failed, fine, warning, worst
from tools.doctor.own_chain import read_device_chain
from tools.doctor.own_device import is_visible, read_database
from tools.models.store import waits_for


def model_checks(settings: Settings) -> tuple[Check, ...]:
    """One check for each package that the settings name."""
    return tuple(
        Check(f"model.{path.name}", partial(_check_package, path))
        for path in settings.models.packages
    )


_NONE_ACTIVE = warning(
    "no model is active: every study ends as NOT_ANALYSED",
    "name model packages in models.packages, or install one with `edge-triage models install` "
    "and activate it; `head_ct_phantom` comes with the software",
)


def check_models(context: Context) -> Finding:
    """Is any model active, does each wait for nobody, and does each name stand for one package?"""
    paths = context.settings.models.packages
    names = Counter(package.manifest.name for path in paths for package in _readable(path))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        return failed(
            f"two packages of models.packages have the name {', '.join(twice)}",
            "keep one of them in models.packages",
        )
    return _judge_store(context.settings)


def _judge_store(settings: Settings) -> Finding:
    path = database_path(settings)
    if not is_visible(path):
        if not settings.models.packages:
            return _NONE_ACTIVE
        return fine("the first start of the device installs what models.packages names")
    try:
        with read_database(path) as connection:
            packages = list_packages(connection)
    except sqlite3.Error:
        return warning("the store of models cannot be read", "see the check 'database'")
    rules = approval_rules(settings)
    findings = [_judge_package(package, settings) for package in packages]
    findings += [
        warning(f"{package.name} {package.version} is not used yet", f"it waits for {waits}")
        for package in packages
        if (waits := waits_for(package, rules))
    ]
    active = sum(package.state is PackageState.ACTIVE for package in packages)
    findings.append(fine(f"{active} active") if active else _NONE_ACTIVE)
    return worst(findings)


def _judge_package(package: StoredPackage, settings: Settings) -> Finding:
    if package.state not in IN_USE:
        return fine(f"{package.name} {package.version} is not in use")
    folder = models_path(settings) / package.digest
    try:
        if load_package(folder).digest == package.digest:
            return fine(f"{package.name} {package.version} is whole")
    except PackageError as error:
        return failed(
            f"the device's copy of {package.name} {package.version} cannot be used, so the worker "
            f"does not start: {error}",
            "install it again from its source with `edge-triage models install`, which mends the "
            "copy; keep the folder as evidence if nobody changed it on purpose",
        )
    return failed(
        f"{folder} holds another package than was verified",
        "install the package again from its source with `edge-triage models install`",
    )


def check_audit(context: Context) -> Finding:
    """Is the record of who did what whole?"""
    try:
        found = read_device_chain(context.settings)
    except (AuditDamagedError, StoreError) as error:
        return failed(str(error), "run this as the user that runs the device")
    chain = found.chain
    if not chain.is_intact:
        return failed(
            "the audit chain was changed after it was written; nothing can be installed, approved "
            "or activated until somebody has looked",
            f"`edge-triage audit verify` names the line; keep {found.path} as evidence and move it "
            "away, then the chain goes on",
        )
    if chain.continues_after:
        return warning(
            f"{chain.continues_after} entries from before are not in the audit chain",
            "keep the file that was moved away together with this one",
        )
    return fine(f"{len(chain.entries)} entries, none changed, removed or added")


def _readable(path: Path) -> tuple[LoadedPackage, ...]:
    """The package, or none: why it cannot be read is for its own check to say."""
    try:
        return find_packages((path,))
    except (SettingsError, ModelEngineError):
        return ()


def _check_package(path: Path, context: Context) -> Finding:
    try:
        (package,) = find_packages((path,))
    except SettingsError as error:
        return failed(str(error), "correct models.packages, or install the package there")
    except PackageIntegrityError as error:
        return failed(
            f"{path} is not what its maker sealed, so it is not installed: {error}",
            f"install the package {path.name} again from its source; keep this copy as evidence if "
            "nobody changed it on purpose",
        )
    except PackageError as error:
        return failed(
            f"{path} is no package that this release can use, so it is not installed: {error}",
            f"install a release of {path.name} that is made for this version of edge-triage",
        )
    return _prove(package, context.settings)


def _prove(package: LoadedPackage, settings: Settings) -> Finding:
    """Run the golden inputs on the engine that the worker would take; nothing is built for it."""
    name = f"{package.manifest.name} {package.manifest.version}"
    preference = preference_of(settings.engine)
    options = options_without_building(settings)
    try:
        with open_live(package, preference, options, asker=Asker.EXAMINER) as live:
            backend = live.engine.metadata.backend
            deviation = live.parity.max_absolute
    except EngineUnavailableError as error:
        return failed(
            f"engine.preference cannot be met here: {error}",
            "install what is missing, or choose other engines in engine.preference; "
            "`edge-triage engines list` shows what this machine has",
        )
    except EngineNotBuiltError as error:
        return _judge_not_built(name, error, settings)
    except PackageError as error:
        return failed(
            f"{name} cannot be run; every analysis by it would fail: {error}",
            f"install {package.folder.name} again, or another release of it",
        )
    except EngineError as error:
        return failed(
            f"this machine does not run {name}; every analysis by it would fail: {error}",
            "choose other engines in engine.preference, reinstall the library in a version that "
            f"edge-triage allows, or take {package.folder.name} out of models.packages",
        )
    found = fine(
        f"{name} reproduces its golden outputs on {backend.value} (largest deviation "
        f"{deviation:.2g})"
    )
    return worst([found, *(_judge_passed_over(name, each) for each in live.passed_over)])


def _judge_not_built(name: str, error: EngineNotBuiltError, settings: Settings) -> Finding:
    found = f"{name} has no engine on this device yet: {error}"
    if settings.engine.gpu.build:
        return warning(
            found,
            "the worker builds it when it starts, which takes minutes; `edge-triage engines build` "
            "does it ahead",
        )
    return failed(found, "`edge-triage engines build`, or let the worker do it: engine.gpu.build")


def _judge_passed_over(name: str, each: PassedOver) -> Finding:
    return warning(
        f"{each.backend.value} is preferred for {name} and cannot run it: {each.detail}",
        f"mend that, or take {each.backend.value} out of engine.preference",
    )
