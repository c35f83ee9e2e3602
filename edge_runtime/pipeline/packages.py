"""Finds model packages: those that the settings name, and those that the device's store holds.

Loads no engine.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import SettingsError
from edge_runtime.store.model_packages import packages_in_use
from engines.checksums import (
    CHECKSUMS,
    MAX_CHECKSUMS_BYTES,
    VerifiedFile,
    parse_checksums,
    read_bounded,
)
from engines.errors import PackageIntegrityError
from engines.loading import PACKAGE_FILE, LoadedPackage, load_package, parse_toml
from engines.package import ModelPackage
from engines.shipped import shipped_packages


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPackage:
    """A package that the worker runs."""

    package: LoadedPackage
    is_shadow: bool


def find_folder(path: Path) -> Path:
    """Return the folder that an entry of ``models.packages`` means.

    Raises:
        SettingsError: a bare name is no shipped package.
    """
    shipped = shipped_packages()
    folder = shipped.get(str(path), path)
    if not folder.is_dir():
        known = ", ".join(shipped) or "none"
        raise SettingsError(
            f"models.packages: {path} is neither a folder nor a shipped package ({known})"
        )
    return folder


def find_packages(paths: Sequence[Path]) -> tuple[LoadedPackage, ...]:
    """Verify and read the packages that the settings name.

    Raises:
        SettingsError: a bare name is no shipped package, or two packages share a name.
        PackageError: a package is not what its maker sealed.
    """
    packages = [load_package(find_folder(path)) for path in paths]
    names = [package.manifest.name for package in packages]
    if len(set(names)) < len(names):
        raise SettingsError("models.packages: two packages have the same name; keep one of them")
    return tuple(packages)


def used_packages(connection: sqlite3.Connection, models: Path) -> tuple[RunPackage, ...]:
    """Verify and read the packages that are active or a shadow; ``models`` is the store's folder.

    Raises:
        PackageError: a package is not what its maker sealed, or its files are gone.
    """
    return tuple(
        RunPackage(package=_load(models / used.digest, used.digest), is_shadow=used.is_shadow)
        for used in packages_in_use(connection)
    )


def _load(folder: Path, digest: str) -> LoadedPackage:
    package = load_package(folder)
    if package.digest != digest:
        raise PackageIntegrityError(
            f"{folder} holds another package than was verified; install it again"
        )
    return package


def digest_of_folder(folder: Path) -> str:
    """Return the digest that names the package in ``folder``; its other files are not looked at.

    Raises:
        PackageIntegrityError: it has no CHECKSUMS.
    """
    return hashlib.sha256(read_bounded(folder / CHECKSUMS, MAX_CHECKSUMS_BYTES)).hexdigest()


def read_manifest(folder: Path, digest: str) -> ModelPackage:
    """Read ``package.toml`` of a package of the store, and no other file.

    Raises:
        PackageError: it is not what its maker sealed.
    """
    listing = read_bounded(folder / CHECKSUMS, MAX_CHECKSUMS_BYTES)
    if hashlib.sha256(listing).hexdigest() != digest:
        raise PackageIntegrityError(f"{folder} holds another package than was verified")
    digests = parse_checksums(listing)
    if PACKAGE_FILE not in digests:
        raise PackageIntegrityError(f"the package has no {PACKAGE_FILE}; its maker must add it")
    file = VerifiedFile(path=folder / PACKAGE_FILE, sha256=digests[PACKAGE_FILE])
    return parse_toml(file, ModelPackage)
