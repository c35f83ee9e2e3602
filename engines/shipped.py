"""The model packages that come with the software."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from engines.errors import PackageIntegrityError
from engines.loading import PACKAGE_FILE


def shipped_packages() -> dict[str, Path]:
    """Returns the folder of each shipped package by its folder's name, sorted.

    Raises:
        PackageIntegrityError: The software is not installed as plain files.
    """
    root = files("engines") / "models"
    if not isinstance(root, Path):
        raise PackageIntegrityError(
            "the shipped models are not plain files; install edge-triage from its wheel, unzipped"
        )
    return {
        folder.name: folder
        for folder in sorted(root.iterdir())
        if (folder / PACKAGE_FILE).is_file()
    }
