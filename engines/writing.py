"""Writes the listing that seals a model package: for whoever makes one, never on a device."""

from __future__ import annotations

from pathlib import Path

from engines.checksums import CHECKSUMS, digest_of, parse_checksums, render_checksums, scan_folder
from engines.durable import write_durably


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
    write_durably(target, [listing], mode=0o644)
    return target
