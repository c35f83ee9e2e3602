"""Writes the listing that seals a model package: for whoever makes one, never on a device."""

from __future__ import annotations

import os
from pathlib import Path

from engines.checksums import CHECKSUMS, digest_of, parse_checksums, render_checksums, scan_folder


def write_checksums(folder: Path) -> Path:
    """Lists every file of ``folder`` in its CHECKSUMS, replacing an older one.

    Returns:
        The path of CHECKSUMS.

    Raises:
        PackageIntegrityError: The folder holds what a package must not hold, such as a link.
    """
    listing = render_checksums(
        {relative: digest_of(folder / relative) for relative in scan_folder(folder)}
    )
    parse_checksums(listing)  # a name that no device would accept is refused here already
    target = folder / CHECKSUMS
    temporary = folder / f".{CHECKSUMS}.{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(listing)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    _fsync_folder(folder)
    return target


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
