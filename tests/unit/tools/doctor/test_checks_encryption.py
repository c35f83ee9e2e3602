"""What the doctor says of encryption, from samples of the kernel's files and from this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.doctor.checks_encryption import (
    BlockDevice,
    Encryption,
    check_encryption,
    describe_block_device,
    encryption_below,
    encryption_of,
    has_fscrypt_policy,
    judge_encryption,
)
from tools.doctor.findings import Context, Status
from tools.doctor.mounts import Mount

MakeContext = Callable[..., Context]

LUKS = "CRYPT-LUKS2-6f1c0c0f5d0b4d0c9a0e4b8f2f9f8a11-state"
LVM = "LVM-0QJxkWbY5N0oQ8dC0Jm3HqSg9hHSvLxq7r2dCw3YvT6Zb1nEo4PaUfKiRsXtGyBm"
DISK = BlockDevice()


@pytest.mark.parametrize(
    ("device", "found"),
    [
        (DISK, Encryption.OFF),
        (BlockDevice(dm_uuid=LUKS, parts=(DISK,)), Encryption.ON),
        (BlockDevice(dm_uuid="CRYPT-PLAIN-swap", parts=(DISK,)), Encryption.ON),
        (BlockDevice(dm_uuid="CRYPT-VERITY-0a1b-root", parts=(DISK,)), Encryption.OFF),
        (BlockDevice(dm_uuid="CRYPT-INTEGRITY-x", parts=(DISK,)), Encryption.OFF),
        (BlockDevice(dm_uuid=LVM, parts=(DISK,)), Encryption.OFF),
        (BlockDevice(dm_uuid=LVM, parts=(BlockDevice(dm_uuid=LUKS),)), Encryption.ON),
        (BlockDevice(dm_uuid=LVM, parts=(BlockDevice(dm_uuid=LUKS), DISK)), Encryption.OFF),
        (BlockDevice(parts=(BlockDevice(dm_uuid=LUKS),) * 2), Encryption.ON),
    ],
    ids=["disk", "luks", "plain", "verity", "integrity", "lvm", "lvm-luks", "half", "raid-luks"],
)
def test_all_that_is_written_must_pass_through_dm_crypt(
    device: BlockDevice, found: Encryption
) -> None:
    assert encryption_below(device) is found


def mount(kind: str, *, device: str = "0:44", source: str = "none") -> Mount:
    return Mount(device=device, kind=kind, source=source)


@pytest.mark.parametrize(
    ("mounted", "found"),
    [
        (mount("ext4", device="253:0"), Encryption.ON),
        (mount("ext4", device="8:1"), Encryption.OFF),
        (mount("btrfs", source="/dev/mapper/state"), Encryption.ON),
        (mount("nfs4", source="server:/x"), Encryption.UNKNOWN),
        (mount("overlay", source="overlay"), Encryption.UNKNOWN),
        (mount("zfs", source="tank/state"), Encryption.UNKNOWN),
        (mount("tmpfs"), Encryption.OFF),
        (mount("ecryptfs", source="/lower"), Encryption.ON),
        (mount("fuse.gocryptfs", source="/lower"), Encryption.ON),
    ],
    ids=lambda value: value.kind if isinstance(value, Mount) else value.value,
)
def test_a_mount_is_as_encrypted_as_what_it_lies_on(mounted: Mount, found: Encryption) -> None:
    known = {
        "253:0": BlockDevice(dm_uuid=LUKS),
        "/dev/mapper/state": BlockDevice(dm_uuid=LUKS),
        "8:1": DISK,
    }
    assert encryption_of(mounted, known.get) is found


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (Encryption.ON, Status.OK),
        (Encryption.OFF, Status.WARNING),
        (Encryption.UNKNOWN, Status.WARNING),
    ],
)
def test_what_is_not_seen_to_be_encrypted_is_a_warning_with_a_remedy(
    found: Encryption, status: Status
) -> None:
    finding = judge_encryption(Path("/var/lib/edge-triage"), found, "ext4")
    assert finding.status is status
    assert "/var/lib/edge-triage" in finding.found
    assert (finding.remedy is None) == (status is Status.OK)


def test_a_file_system_that_encrypts_by_itself_is_pointed_to() -> None:
    finding = judge_encryption(Path("/x"), Encryption.UNKNOWN, "zfs")
    assert "zfs get encryption" in (finding.remedy or "")


def _sysfs(root: Path) -> None:
    """The part of /sys of a machine with a LUKS volume, and LVM in it, on a partition."""
    disk = root / "devices" / "nvme0n1"
    (disk / "nvme0n1p2").mkdir(parents=True)
    (disk / "slaves").mkdir()
    (disk / "nvme0n1p2" / "partition").write_text("2\n")
    for name, uuid, below in (("dm-0", LUKS, disk / "nvme0n1p2"), ("dm-1", LVM, None)):
        (root / "devices" / name / "dm").mkdir(parents=True)
        (root / "devices" / name / "dm" / "uuid").write_text(f"{uuid}\n")
        (root / "devices" / name / "slaves").mkdir()
        target = below or root / "devices" / "dm-0"
        (root / "devices" / name / "slaves" / target.name).symlink_to(target)
    block = root / "block"
    block.mkdir()
    for number, name in (("253:0", "dm-0"), ("253:1", "dm-1"), ("259:2", "nvme0n1/nvme0n1p2")):
        (block / number).symlink_to(root / "devices" / name)


def test_devices_are_read_from_sysfs(tmp_path: Path) -> None:
    _sysfs(tmp_path)
    block = tmp_path / "block"
    luks = BlockDevice(dm_uuid=LUKS, parts=(DISK,))
    assert describe_block_device("253:0", block) == luks
    assert describe_block_device("253:1", block) == BlockDevice(dm_uuid=LVM, parts=(luks,))
    assert describe_block_device("259:2", block) == DISK
    assert describe_block_device("0:44", block) is None
    assert describe_block_device("/dev/there-is-no-such-device", block) is None


def test_an_ordinary_folder_has_no_policy_of_fscrypt(tmp_path: Path) -> None:
    assert not has_fscrypt_policy(tmp_path)


def test_this_machine_gets_an_answer(make_context: MakeContext, state_dir: Path) -> None:
    (state_dir / "spool").mkdir()
    finding = check_encryption(make_context())
    assert str(state_dir) in finding.found
    assert finding.status in {Status.OK, Status.WARNING}
