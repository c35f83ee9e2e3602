"""Whose engines are meant: the packages of a device, or those that the command names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.config.loading import load_settings
from edge_runtime.config.settings import Settings
from edge_runtime.errors import SettingsError
from edge_runtime.pipeline.packages import find_packages, used_packages
from edge_runtime.process import database_path, models_path
from edge_runtime.store.database import connect
from engines.loading import LoadedPackage
from tools.console import DEFAULT_CONFIG, err

PackagesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--package",
        help="A folder, or the name of a shipped package; repeat for more.",
        show_default="those that the device uses",
    ),
]


def settings_of(config: Path, *, default: Path = DEFAULT_CONFIG) -> Settings:
    """The device's settings; the defaults on a machine that is none yet, where no file was named.

    Raises:
        SettingsError: the file cannot be read, or is wrong.
    """
    if config == default and not config.exists():
        err.print("no device is set up here: this is what the default settings would give")
        return Settings()
    return load_settings(config)


def packages_of(settings: Settings, named: Sequence[Path] | None) -> tuple[LoadedPackage, ...]:
    """Verify and read the packages.

    Args:
        settings: the device's.
        named: by the command; none means those that the device uses or, before it has run, those
            that its settings name.

    Raises:
        SettingsError: there is no such package, or none at all.
        PackageError: a package is not what its maker sealed.
    """
    packages = find_packages(named) if named else _used(settings)
    if not packages:
        raise SettingsError(
            "no model is in use: name one in models.packages, or give --package head_ct_phantom"
        )
    return packages


def _used(settings: Settings) -> tuple[LoadedPackage, ...]:
    path = database_path(settings)
    if not path.is_file():
        return find_packages(settings.models.packages)
    with contextlib.closing(connect(path)) as connection:
        return tuple(item.package for item in used_packages(connection, models_path(settings)))
