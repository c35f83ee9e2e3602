"""Is what the device stores encrypted on its disk? Asks the kernel, and judges purely.

Names stand in the database, images in the spool: both folders are looked at.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from tools.doctor.checks_storage import VOLATILE, folders_of, nearest_existing
from tools.doctor.findings import Context, Finding, fine, warning, worst
from tools.doctor.mounts import Mount, mount_of, read_mountinfo

_SYS_BLOCK = Path("/sys/dev/block")

FS_IOC_GET_ENCRYPTION_POLICY_EX = 0xC009_6616
"""_IOWR('f', 22, 9 bytes): linux/fscrypt.h; the argument is larger than its number says."""
_POLICY_BYTES = 8 + 24
"""A size of 8 bytes, then the largest policy (fscrypt_policy_v2)."""
_NO_POLICY = frozenset({errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})
"""Not encrypted; not a file system that could be; one that could, but was not made for it."""

_STACKED = frozenset({"ecryptfs", "fuse.gocryptfs", "fuse.encfs", "fuse.cryfs"})
_OWN_LOOK = MappingProxyType(
    {
        "zfs": "ZFS encrypts by itself: look at `zfs get encryption`",
        "bcachefs": "bcachefs encrypts by itself: look at `bcachefs show-super`",
    }
)
_REMEDY = (
    "put device.state_dir onto a LUKS volume or into a folder under fscrypt, as "
    "docs/node/retention.md describes step by step"
)


class Encryption(Enum):
    """What can be said of a folder."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


def check_encryption(context: Context) -> Finding:
    """Are database and spool encrypted on their disk?"""
    mountinfo = read_mountinfo()
    folders = dict.fromkeys(nearest_existing(folder).resolve() for folder in folders_of(context))
    return worst([_look_at(folder, mountinfo) for folder in folders])


def _look_at(folder: Path, mountinfo: str) -> Finding:
    if has_fscrypt_policy(folder):
        return fine(f"{folder} is encrypted (fscrypt)")
    mount = mount_of(folder, mountinfo)
    if mount is None:
        return judge_encryption(folder, Encryption.UNKNOWN, "an unknown file system")
    return judge_encryption(folder, encryption_of(mount, describe_block_device), mount.kind)


def judge_encryption(folder: Path, found: Encryption, kind: str) -> Finding:
    """Judge what was found for one folder; ``kind`` is that of its file system."""
    if found is Encryption.ON:
        return fine(f"{folder} lies on an encrypted disk ({kind})")
    if found is Encryption.OFF:
        return warning(
            f"{folder} is not encrypted ({kind}): whoever takes the disk away can read images and "
            "names",
            _REMEDY,
        )
    return warning(
        f"whether {folder} is encrypted cannot be seen from here ({kind})",
        _OWN_LOOK.get(kind, f"look at the machine that holds the disk; if it is not, {_REMEDY}"),
    )


def encryption_of(mount: Mount, describe: Callable[[str], BlockDevice | None]) -> Encryption:
    """Say whether what is mounted is encrypted; ``describe`` knows the block devices."""
    if mount.kind in _STACKED:
        return Encryption.ON
    if mount.kind in VOLATILE:
        return Encryption.OFF
    device = describe(mount.device)
    if device is None:
        device = describe(mount.source)
    return Encryption.UNKNOWN if device is None else encryption_below(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """A block device and what it is made of."""

    dm_uuid: str = ""
    """Empty for all that device-mapper did not make."""
    parts: tuple[BlockDevice, ...] = ()


_PLAIN_TARGETS = ("CRYPT-VERITY-", "CRYPT-INTEGRITY-")
"""libcryptsetup's other targets, which protect against changes and hide nothing."""


def encryption_below(device: BlockDevice) -> Encryption:
    """Say whether all that a device writes passes through dm-crypt."""
    if device.dm_uuid.startswith("CRYPT-") and not device.dm_uuid.startswith(_PLAIN_TARGETS):
        return Encryption.ON
    if device.parts and all(encryption_below(part) is Encryption.ON for part in device.parts):
        return Encryption.ON
    return Encryption.OFF


def describe_block_device(name: str, root: Path = _SYS_BLOCK) -> BlockDevice | None:
    """Read a device from sysfs, given ``MAJOR:MINOR`` or its path in /dev; None: it is none."""
    if name.startswith("/"):
        try:
            number = Path(name).stat().st_rdev
        except OSError:
            return None
        name = f"{os.major(number)}:{os.minor(number)}"
    folder = root / name
    return _describe(folder.resolve()) if folder.exists() else None


def _describe(folder: Path) -> BlockDevice:
    if (folder / "partition").exists():
        return _describe(folder.parent)
    below = folder / "slaves"
    parts = sorted(below.iterdir()) if below.is_dir() else []
    return BlockDevice(
        dm_uuid=_text(folder / "dm" / "uuid"),
        parts=tuple(_describe(part.resolve()) for part in parts),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except OSError:
        return ""


def has_fscrypt_policy(folder: Path) -> bool:
    """Ask the file system whether it encrypts the folder's files; a closed one does not tell."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return False
    argument = bytearray((_POLICY_BYTES - 8).to_bytes(8, "little") + bytes(_POLICY_BYTES - 8))
    try:
        fcntl.ioctl(handle, FS_IOC_GET_ENCRYPTION_POLICY_EX, argument)
    except OSError as error:
        if error.errno not in _NO_POLICY:
            raise
        return False
    finally:
        os.close(handle)
    return True
