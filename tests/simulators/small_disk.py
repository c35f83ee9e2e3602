"""Real disks that are small, broken or read-only: tmpfs, and ext4 in a file on a loop device."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from simulators.waiting import wait_until

MIB = 1 << 20
_REMOUNTS_S = 20.0
_BLOCK = bytes(64 * 1024)
# FS_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH of Linux.
_SHUT_DOWN, _WITHOUT_FLUSH = 0x8004587D, struct.pack("I", 2)


def why_not() -> str | None:
    """Why no disk can be mounted here; None where it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which("mkfs.ext4", path=_system_path()) is None:
        return "mkfs.ext4 is not installed"
    try:
        _run("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt")
    except subprocess.CalledProcessError:
        return "this machine does not let us mount"
    return None


@dataclass(slots=True, kw_only=True)
class SmallDisk:
    """A mounted file system."""

    folder: Path
    _ballast: Path = field(init=False)

    def __post_init__(self) -> None:
        self._ballast = self.folder / "ballast"

    @property
    def free_bytes(self) -> int:
        """What may still be written."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave_bytes: int) -> None:
        """Let somebody else's file take the room, all but so much."""
        with self._ballast.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while (more := self.free_bytes - leave_bytes) > 0:
                ballast.write(_BLOCK[: min(more, len(_BLOCK))])
            os.fsync(ballast.fileno())

    def make_room(self) -> None:
        """Remove that file."""
        self._ballast.unlink()

    def remount(self, options: str) -> None:
        """Change mount options; while a file is open for writing, ``ro`` has to wait."""
        wait_until(lambda: self._try_remount(options), _REMOUNTS_S)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let every write wait until the block ends.

        An image in here, mounted elsewhere, stands still meanwhile, as in one moment.
        """
        _run("fsfreeze", "--freeze", str(self.folder))
        try:
            yield
        finally:
            _run("fsfreeze", "--unfreeze", str(self.folder))

    def shut_down(self) -> None:
        """Let nothing reach the disk any more, not even what was taken; ext4 never comes back.

        An image in here, mounted elsewhere, is a disk that has lost its own write cache.
        """
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUT_DOWN, _WITHOUT_FLUSH)
        finally:
            os.close(descriptor)

    def _try_remount(self, options: str) -> bool:
        done = subprocess.run(
            ["mount", "-o", f"remount,{options}", self.folder], capture_output=True, check=False
        )
        return done.returncode == 0


@contextlib.contextmanager
def memory_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A tmpfs, which knows no direct writes."""
    with _mounted("-t", "tmpfs", "-o", f"size={size_bytes}", "none", folder=folder) as disk:
        yield disk


def make_image(image: Path, size_bytes: int) -> None:
    """Make an ext4 file system in a sparse file, all of whose tables are written."""
    with image.open("wb") as stream:
        stream.truncate(size_bytes)
    features = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    _run("mkfs.ext4", "-q", "-m", "0", "-E", features, str(image))


def repair_image(image: Path) -> None:
    """What a device does at boot (e2fsck -p); it fails where a person would have to decide."""
    done = subprocess.run(
        ["e2fsck", "-f", "-p", image], capture_output=True, check=False, env=_environment()
    )
    corrected = 1
    assert done.returncode in (0, corrected), done.stdout


@contextlib.contextmanager
def image_disk(folder: Path, image: Path) -> Iterator[SmallDisk]:
    """An ext4 file system on a loop device, which takes direct writes."""
    with _mounted("-o", "loop", str(image), folder=folder) as disk:
        yield disk


@contextlib.contextmanager
def _mounted(*arguments: str, folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", *arguments, str(folder))
    try:
        yield SmallDisk(folder=folder)
    finally:
        # Lazily: a test that failed may still have a node on it.
        _run("umount", "--lazy", str(folder))


def _run(program: str, *arguments: str) -> None:
    subprocess.run([program, *arguments], check=True, capture_output=True, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _system_path()}


def _system_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
