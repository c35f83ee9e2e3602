"""Are the active model packages what their makers sealed, and does this machine reproduce them?"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from edge_runtime.config.settings import Settings
from edge_runtime.errors import SettingsError
from edge_runtime.pipeline.packages import find_packages
from engines.backends import Backend, open_engine
from engines.contract import EngineOptions
from engines.errors import (
    EngineUnavailableError,
    ModelEngineError,
    PackageError,
    PackageIntegrityError,
    ParityError,
)
from engines.loading import LoadedPackage
from engines.parity import check_parity
from tools.doctor.findings import Check, Context, Finding, failed, fine, warning


def model_checks(settings: Settings) -> tuple[Check, ...]:
    """One check for each package that the settings name."""
    return tuple(
        Check(f"model.{path.name}", partial(_check_package, path))
        for path in settings.models.packages
    )


def check_models(context: Context) -> Finding:
    """Is any model active, and does each name stand for one package?"""
    paths = context.settings.models.packages
    if not paths:
        return warning(
            "no model is active: every study ends as NOT_ANALYSED",
            "name model packages in models.packages; `head_ct_phantom` comes with the software",
        )
    names = Counter(package.manifest.name for path in paths for package in _readable(path))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        return failed(
            f"two packages of models.packages have the name {', '.join(twice)}",
            "keep one of them in models.packages",
        )
    return fine(f"{len(paths)} active")


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
            f"{path} is not what its maker sealed, so the worker does not start: {error}",
            f"install the package {path.name} again from its source; keep this copy as evidence if "
            "nobody changed it on purpose",
        )
    except PackageError as error:
        return failed(
            f"{path} is no package that this release can use, so the worker does not start: "
            f"{error}",
            f"install a release of {path.name} that is made for this version of edge-triage",
        )
    return _prove(package, context.settings)


def _prove(package: LoadedPackage, settings: Settings) -> Finding:
    """Run the golden inputs on this machine's engine."""
    options = EngineOptions(intra_op_threads=settings.engine.threads)
    name = f"{package.manifest.name} {package.manifest.version}"
    try:
        backend = Backend(settings.engine.backend.value)
        with open_engine(backend, package.model, options) as engine:
            report = check_parity(engine, package)
    except EngineUnavailableError as error:
        return failed(
            f"engine.backend cannot be used here: {error}",
            f"`pip install {settings.engine.backend.value}`, or choose another engine.backend",
        )
    except ParityError as error:
        return failed(
            f"this machine does not reproduce {name}; every analysis by it would fail: {error}",
            f"choose another engine.backend, reinstall {settings.engine.backend.value} in a "
            f"version that edge-triage allows, or take {package.folder.name} out of "
            "models.packages",
        )
    except ModelEngineError as error:
        return failed(
            f"{name} cannot be run; every analysis by it would fail: {error}",
            f"install {package.folder.name} again, or another release of it",
        )
    return fine(
        f"{name} reproduces its golden outputs on {settings.engine.backend.value} "
        f"(largest deviation {report.max_absolute:.2g})"
    )
