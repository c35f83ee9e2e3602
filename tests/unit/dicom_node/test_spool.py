from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.errors import InstanceTooLargeError, SpoolFailedError, SpoolFullError
from dicom_node.incoming import IncomingFile, device_error
from dicom_node.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def _received(spool: Spool, content: bytes = b"data") -> IncomingFile:
    incoming = spool.begin(b"head", max_bytes=1 << 30)
    incoming.write(content)
    return incoming


def test_published_file_has_its_content_and_an_opaque_name(spool: Spool) -> None:
    path = spool.keep(_received(spool))
    assert spool.absolute(path).read_bytes() == b"headdata"
    assert list(spool.iter_files()) == [path]
    assert list((spool.root / "incoming").iterdir()) == []


def test_two_files_never_share_a_name(spool: Spool) -> None:
    assert len({spool.keep(_received(spool)) for _ in range(20)}) == 20


def test_orphans_are_the_published_files_that_nobody_knows(spool: Spool) -> None:
    known, orphan = spool.keep(_received(spool)), spool.keep(_received(spool))
    (spool.root / "00" / "stray.txt").write_text("not ours")
    assert list(spool.orphans({known})) == [orphan]


def test_quarantined_file_keeps_its_name_and_is_no_orphan(spool: Spool) -> None:
    path = spool.keep(_received(spool))
    moved = spool.quarantine(path)
    assert moved == f"quarantine/{Path(path).name}"
    assert spool.absolute(moved).read_bytes() == b"headdata"
    assert list(spool.iter_files()) == []


@pytest.mark.parametrize(
    "path",
    ["../x.dcm", "/etc/passwd", "aa/../../x.dcm", "incoming/x.dcm", "", "zz/" + "0" * 30 + ".dcm"],
)
def test_foreign_path_is_refused(spool: Spool, path: str) -> None:
    with pytest.raises(ValueError, match="spool"):
        spool.absolute(path)


def test_nothing_is_accepted_below_the_reserve(tmp_path: Path) -> None:
    full = Spool(tmp_path, min_free_bytes=1 << 62)
    with pytest.raises(SpoolFullError):
        full.begin(b"", max_bytes=1)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_instance_beyond_its_bound_is_refused_and_leaves_nothing(spool: Spool) -> None:
    incoming = spool.begin(b"head", max_bytes=10)
    incoming.write(b"0123456789")
    with pytest.raises(InstanceTooLargeError):
        incoming.write(b"x")
    incoming.discard()
    incoming.discard()
    assert list((spool.root / "incoming").iterdir()) == []


def test_unfinished_files_are_cleared(spool: Spool) -> None:
    spool.begin(b"head", max_bytes=10).sync()
    assert spool.clear_incoming() == 1
    assert spool.clear_incoming() == 0


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The kernel lets no file of this process grow beyond 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
def test_write_that_the_disk_refuses_is_a_device_error_and_leaves_nothing(spool: Spool) -> None:
    incoming = spool.begin(b"head", max_bytes=1 << 30)
    with pytest.raises(SpoolFailedError, match="EFBIG"):
        incoming.write(bytes(4 << 20))
    incoming.discard()
    assert list((spool.root / "incoming").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_told_from_a_broken_disk(number: int) -> None:
    assert isinstance(device_error(OSError(number, "/secret/path")), SpoolFullError)
    broken = device_error(OSError(errno.EIO, "/secret/path"))
    assert isinstance(broken, SpoolFailedError)
    assert "secret" not in str(broken)
