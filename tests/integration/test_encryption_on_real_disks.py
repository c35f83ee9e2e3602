"""The doctor's look at encryption, on real file systems; needs root and loop devices."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from simulators.encrypted_disk import DiskRefusedError, fscrypt_folder, luks_disk, plain_disk

from edge_runtime.config.loading import parse_settings
from tools.doctor.checks_encryption import check_encryption
from tools.doctor.findings import Context, Finding, Status

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root mounts file systems")

Disk = Callable[[Path], AbstractContextManager[Path]]
Enter = Callable[[Disk], Path]


@pytest.fixture
def enter(tmp_path: Path) -> Iterator[Enter]:
    with ExitStack() as stack:

        def make(disk: Disk) -> Path:
            try:
                return stack.enter_context(disk(tmp_path))
            except DiskRefusedError as error:
                pytest.skip(f"this machine refused: {error}")

        yield make


def look_at(state_dir: Path) -> Finding:
    with contextlib.suppress(FileExistsError):
        (state_dir / "spool").mkdir()
    settings = parse_settings({"device": {"state_dir": str(state_dir)}}, {})
    return check_encryption(Context(settings=settings))


def test_a_plain_disk_is_seen(enter: Enter) -> None:
    found = look_at(enter(plain_disk))
    assert found.status is Status.WARNING
    assert "is not encrypted (ext4)" in found.found


def test_a_folder_under_fscrypt_is_seen(enter: Enter) -> None:
    found = look_at(enter(fscrypt_folder))
    assert found.status is Status.OK
    assert "fscrypt" in found.found


def test_a_plain_folder_beside_one_under_fscrypt_is_seen(enter: Enter) -> None:
    assert look_at(enter(fscrypt_folder).parent).status is Status.WARNING


def test_a_luks_volume_is_seen(enter: Enter) -> None:
    found = look_at(enter(luks_disk))
    assert found.status is Status.OK
    assert "lies on an encrypted disk (ext4)" in found.found
