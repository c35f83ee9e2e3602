"""Finds and verifies the model packages that the settings name; loads no engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import SettingsError
from engines.loading import LoadedPackage, load_package
from engines.shipped import shipped_packages


def find_packages(paths: Sequence[Path]) -> tuple[LoadedPackage, ...]:
    """Verify and read the packages that the settings name.

    Raises:
        SettingsError: a bare name is no shipped package, or two packages share a name.
        PackageError: a package is not what its maker sealed.
    """
    shipped = shipped_packages()
    packages = []
    for path in paths:
        folder = shipped.get(str(path), path)
        if not folder.is_dir():
            known = ", ".join(shipped) or "none"
            raise SettingsError(
                f"models.packages: {path} is neither a folder nor a shipped package ({known})"
            )
        packages.append(load_package(folder))
    names = [package.manifest.name for package in packages]
    if len(set(names)) < len(names):
        raise SettingsError("models.packages: two packages have the same name; keep one of them")
    return tuple(packages)
