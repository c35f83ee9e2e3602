"""Write, then publish: after a crash or a power cut a file is there whole, or as it was before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

DRAFT = ".draft"
"""How the name of a file that is being written ends; it begins with a dot."""

_AT_ONCE_BYTES = 8 << 20
"""Of one write, so that a signal is heard in between."""


def write_durably(path: Path, parts: Sequence[bytes], *, mode: int) -> None:
    """Give ``path`` a new content, or leave it as it is.

    Only one writer at a time may be at a path: the draft beside it has always the same name, so
    that what a crash left is replaced by the next writer.

    Args:
        path: Replaced when it is there, also when it is a link.
        parts: Written one after the other.
        mode: Permission bits, whatever the umask.

    Raises:
        OSError: The disk refused; nothing is left of the draft.
    """
    draft = path.with_name(f".{path.name}{DRAFT}")
    draft.unlink(missing_ok=True)
    try:
        _write_draft(draft, parts, mode)
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut.

    Raises:
        OSError: The disk refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_draft(draft: Path, parts: Sequence[bytes], mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, mode)
    try:
        os.fchmod(descriptor, mode)
        for part in parts:
            left = memoryview(part)
            while left:
                left = left[os.write(descriptor, left[:_AT_ONCE_BYTES]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
