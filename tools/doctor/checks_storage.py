"""Where the device keeps its state: may it write there, is there room, does it last?"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from edge_runtime.process import spool_path
from tools.doctor.findings import Context, Finding, failed, fine, warning, worst
from tools.doctor.mounts import mount_of, read_mountinfo
from tools.doctor.own_device import is_visible

_SUBFOLDERS = ("spool", "ledger", "telemetry")
_PROBE = b"edge-triage doctor\n" * 256

FEWEST_INODES = 1_000
"""Every image is a file: two studies more."""
FEW_INODES = 50_000
"""About a day of studies."""

VOLATILE = frozenset({"tmpfs", "ramfs"})
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs"})

_GIB = 1024**3


def check_state_dir(context: Context) -> Finding:
    """Can the device write where it keeps its state? Writes a file, and removes it again."""
    state_dir = context.settings.device.state_dir
    if not is_visible(state_dir):
        return _judge_parent(state_dir)
    if not state_dir.is_dir():
        return failed(
            f"device.state_dir {state_dir} is no folder",
            "set device.state_dir to a folder of the device's own",
        )
    try:
        _write_probe(state_dir)
    except OSError as error:
        return _unwritable(state_dir, error)
    for folder in folders_of(context)[1:]:
        if not os.access(folder, os.W_OK | os.X_OK):
            return _unwritable(folder, PermissionError(_why_no_access(folder), ""))
    return fine(f"{state_dir} can be written")


def _judge_parent(state_dir: Path) -> Finding:
    parent = nearest_existing(state_dir)
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return fine(f"{state_dir} does not exist yet; the first start makes it")
    return failed(
        f"device.state_dir {state_dir} is not there, and this user may not make it below {parent}",
        f"run `install -d -o USER {state_dir}` as root, with the user that runs the device, or set "
        "another device.state_dir",
    )


def _write_probe(folder: Path) -> None:
    """Write and sync more than a block, as a database does.

    Raises:
        OSError: the file system refused.
    """
    handle, name = tempfile.mkstemp(prefix=".doctor-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


_FREE_SPACE = "free space, or set device.state_dir to a larger disk"
_REMEDIES: Mapping[int, str] = MappingProxyType(
    {
        errno.EACCES: "run this as the user that runs the device, and give the folder to that "
        "user (`chown -R`), or set another device.state_dir",
        errno.EROFS: "the file system is mounted read-only: look into the system's log for disk "
        "errors, then mount it read-write, or set another device.state_dir",
        errno.ENOSPC: _FREE_SPACE,
        errno.EDQUOT: "raise the user's disk quota, or set another device.state_dir",
        errno.EFBIG: "raise the limit of file sizes (`ulimit -f unlimited`, LimitFSIZE= in the "
        "systemd unit)",
    }
)


def _unwritable(folder: Path, error: OSError) -> Finding:
    code = errno.EACCES if error.errno == errno.EPERM else error.errno or errno.EIO
    return failed(
        f"{folder} (device.state_dir) cannot be written: {os.strerror(code)}; "
        "every store would be refused",
        _REMEDIES.get(code, "look into the system's log for errors of this disk"),
    )


def _why_no_access(folder: Path) -> int:
    return errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES


def check_disk(context: Context) -> Finding:
    """Is there room above the reserve, in bytes and in files?"""
    findings = []
    for folder in one_per_disk(context):
        state = os.statvfs(folder)
        free = state.f_bavail * state.f_frsize
        findings.append(judge_room(folder, free, context.settings.node.min_free_bytes))
        # Some file systems have no fixed number of inodes, and say 0 of 0.
        if state.f_files:
            findings.append(judge_inodes(folder, state.f_favail))
    return worst(findings)


def judge_room(folder: Path, free_bytes: int, reserve_bytes: int) -> Finding:
    """Judge the free bytes against ``node.min_free_bytes``."""
    shown = f"{free_bytes / _GIB:.1f} GiB free at {folder}"
    reserve = f"the reserve of {reserve_bytes / _GIB:.1f} GiB (node.min_free_bytes)"
    if free_bytes < reserve_bytes:
        return failed(
            f"{shown}, below {reserve}: the node refuses every store with A700",
            "free space on this disk, set device.state_dir to a larger one, or lower "
            "node.min_free_bytes",
        )
    if free_bytes < 2 * reserve_bytes:
        return warning(
            f"{shown}, close to {reserve}, at which the node refuses stores",
            "free space on this disk soon, or set device.state_dir to a larger one",
        )
    return fine(shown)


def judge_inodes(folder: Path, free_inodes: int) -> Finding:
    """Judge the number of files that can still be made."""
    found = f"room for {free_inodes} more files at {folder}"
    if free_inodes >= FEW_INODES:
        return fine(found)
    judge = failed if free_inodes < FEWEST_INODES else warning
    return judge(
        f"only {found}: every image is a file (the file system is out of inodes)",
        "remove small files from this disk, or make its file system anew with more inodes "
        "(`mkfs.ext4 -T small`)",
    )


def check_file_system(context: Context) -> Finding:
    """Does what is written there outlast a power cut?"""
    mounts = read_mountinfo()
    return worst(
        [
            judge_file_system(folder, file_system_of(folder.resolve(), mounts))
            for folder in one_per_disk(context)
        ]
    )


def judge_file_system(folder: Path, kind: str) -> Finding:
    """Judge the kind of file system that a folder lies on."""
    move = "set device.state_dir to a folder on a local disk (ext4, xfs)"
    if kind in VOLATILE:
        return warning(
            f"{folder} lies in memory ({kind}): received studies are gone after a restart", move
        )
    if kind in REMOTE:
        return warning(
            f"{folder} lies on a network file system ({kind}), on which SQLite's write-ahead log "
            "is not safe",
            move,
        )
    return fine(f"{folder} lies on {kind}")


def file_system_of(folder: Path, mountinfo: str) -> str:
    """Find the kind of file system in the text of ``/proc/self/mountinfo`` (proc(5))."""
    mount = mount_of(folder, mountinfo)
    return mount.kind if mount else "an unknown file system"


def folders_of(context: Context) -> list[Path]:
    """The state folder, and those below it that are there."""
    state_dir = context.settings.device.state_dir
    folders = [state_dir, *(state_dir / name for name in _SUBFOLDERS)]
    return [folders[0], *(folder for folder in folders[1:] if is_visible(folder))]


def one_per_disk(context: Context) -> Iterator[Path]:
    """State folder and spool, or where they will be made: one for each file system."""
    seen = set()
    for folder in (context.settings.device.state_dir, spool_path(context.settings)):
        existing = nearest_existing(folder)
        device = existing.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield existing


def nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if is_visible(each))
