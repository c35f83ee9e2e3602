from __future__ import annotations

from pathlib import Path

from tools.doctor.mounts import Mount, mount_of, read_mountinfo

MOUNTINFO = """\
30 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 30 0:44 /@home /home rw shared:9 master:2 - btrfs /dev/mapper/luks\\0401 rw,subvol=/@home
37 30 253:3 / /var/lib/edge\\040triage rw - xfs /dev/mapper/state rw
"""


def test_a_folder_lies_on_the_nearest_mount_above_it() -> None:
    assert mount_of(Path("/var/lib/edge triage/spool"), MOUNTINFO) == Mount(
        device="253:3", kind="xfs", source="/dev/mapper/state"
    )
    assert mount_of(Path("/home/x"), MOUNTINFO) == Mount(
        device="0:44", kind="btrfs", source="/dev/mapper/luks 1"
    )
    assert mount_of(Path("/var/lib"), MOUNTINFO) == Mount(
        device="254:0", kind="ext4", source="/dev/vda"
    )


def test_without_mounts_there_is_none() -> None:
    assert mount_of(Path("/x"), "") is None


def test_this_machine_s_root_is_mounted() -> None:
    assert mount_of(Path("/"), read_mountinfo()) is not None
