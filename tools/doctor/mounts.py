"""What is mounted where: the text of ``/proc/self/mountinfo`` (proc(5)), read purely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mounted file system."""

    device: str
    """Major and minor number, ``8:1``; the major 0 belongs to no block device."""
    kind: str
    source: str
    """A device's path, or whatever the file system calls what it shows."""


def read_mountinfo() -> str:
    """Return what the kernel says of this process's mounts."""
    return Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")


def mount_of(folder: Path, mountinfo: str) -> Mount | None:
    """Find the mount that a folder, whose path is resolved, lies on."""
    found, longest = None, -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source, *_) = before.split(), after.split()
        place = Path(_unescaped(fields[4]))
        # The last of equals hides those before it.
        if folder.is_relative_to(place) and len(place.parts) >= longest:
            found = Mount(device=fields[2], kind=kind, source=_unescaped(source))
            longest = len(place.parts)
    return found


def _unescaped(text: str) -> str:
    """Undo the octal escapes of space, tab, newline and backslash."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
