from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulators.waiting import wait_until
from structlog.testing import capture_logs

from dicom_node import journal as journal_module
from dicom_node.errors import SpoolFailedError
from dicom_node.incoming import IncomingFile
from dicom_node.journal import SEGMENTS
from dicom_node.journal_format import PAGE_BYTES, record_bytes
from dicom_node.spool import Spool

_SEGMENT_BYTES = 512 * 1024
_JOURNAL_BYTES = SEGMENTS * _SEGMENT_BYTES
_SMALL = 10_000


def _open(root: Path, *, journal_bytes: int = _JOURNAL_BYTES) -> Spool:
    return Spool(root, journal_bytes=journal_bytes)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with _open(tmp_path / "spool") as opened:
        wait_until(lambda: opened.has_journal)
        yield opened


def _received(spool: Spool, content: bytes) -> IncomingFile:
    incoming = spool.begin(b"head", max_bytes=1 << 30)
    incoming.write(content)
    return incoming


def _keep(spool: Spool, content: bytes) -> str:
    incoming = _received(spool, content)
    try:
        return spool.keep(incoming)
    finally:
        incoming.release()


def _sizes(root: Path) -> list[int]:
    return [each.stat().st_size for each in (root / "journal").iterdir()]


def _after_power_failure(spool: Spool, root: Path) -> Path:
    """A copy of what is on the disk for sure, when nothing was synced but the journal."""
    shutil.copytree(spool.root / "journal", root / "journal")
    return root


def test_after_a_power_failure_every_file_is_there_again(spool: Spool, tmp_path: Path) -> None:
    kept = {_keep(spool, content): content for content in (b"", b"one", os.urandom(_SMALL))}
    found = Spool(_after_power_failure(spool, tmp_path / "after"))
    assert set(found.iter_files()) == set(kept)
    for path, content in kept.items():
        assert found.absolute(path).read_bytes() == b"head" + content
    assert list((found.root / "incoming").iterdir()) == []


def test_what_a_power_failure_left_of_a_file_is_written_over(spool: Spool, tmp_path: Path) -> None:
    path = _keep(spool, b"whole")
    root = _after_power_failure(spool, tmp_path / "after")
    (root / path).parent.mkdir()
    (root / path).write_bytes(bytes(9))  # the size was on the disk, the content was not
    assert Spool(root).absolute(path).read_bytes() == b"headwhole"


def test_a_replayed_journal_is_void(spool: Spool, tmp_path: Path) -> None:
    path = _keep(spool, b"once")
    root = _after_power_failure(spool, tmp_path / "after")
    _open(root).remove(path)
    assert list(_open(root).iter_files()) == []


def test_a_journal_that_is_not_wanted_any_more_is_replayed_and_goes(
    spool: Spool, tmp_path: Path
) -> None:
    path = _keep(spool, b"data")
    root = _after_power_failure(spool, tmp_path / "after")
    found = _open(root, journal_bytes=0)
    assert list(found.iter_files()) == [path]
    assert list((root / "journal").iterdir()) == []
    with found:
        assert not found.has_journal
        _keep(found, b"more")


def test_a_journal_of_another_size_is_replayed_and_made_anew(spool: Spool, tmp_path: Path) -> None:
    path = _keep(spool, b"data")
    root = _after_power_failure(spool, tmp_path / "after")
    with _open(root, journal_bytes=2 * _JOURNAL_BYTES) as found:
        assert list(found.iter_files()) == [path]
        wait_until(lambda: _sizes(root) == [2 * _SEGMENT_BYTES] * SEGMENTS)


@pytest.mark.parametrize(
    "size",
    [0, PAGE_BYTES, _SEGMENT_BYTES // 2, _SEGMENT_BYTES - PAGE_BYTES, _SEGMENT_BYTES + PAGE_BYTES],
)
@pytest.mark.parametrize("is_known", [True, False], ids=["stopped", "killed"])
def test_a_segment_that_was_being_made_is_made_anew(
    is_known: bool, size: int, tmp_path: Path
) -> None:
    """Killed, or stopped and started again by the same process."""
    root = tmp_path / "spool"
    opened = _open(root)
    (root / "journal" / "1.journal").write_bytes(bytes(size))
    with capture_logs() as logs, opened if is_known else _open(root):
        wait_until(lambda: logs)
    assert [each["event"] for each in logs] == ["node.journal_ready"]
    assert _sizes(root) == [_SEGMENT_BYTES] * SEGMENTS
    assert _written(root) == [_SEGMENT_BYTES] * SEGMENTS


def _written(root: Path) -> list[int]:
    """What each segment has before its first hole, or block without bytes: lseek(2)."""
    found = []
    for path in (root / "journal").iterdir():
        with path.open("rb") as stream:
            found.append(os.lseek(stream.fileno(), 0, os.SEEK_HOLE))
    return found


def test_segments_are_used_again_and_again(spool: Spool, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    rounds = 3 * _JOURNAL_BYTES // record_bytes(len(content))
    for number in range(rounds):
        wait_until(lambda: spool.has_journal)
        _keep(spool, number.to_bytes(4, "big") + content)
    files = list(spool.iter_files())
    assert len(files) == rounds
    assert _sizes(spool.root) == [_SEGMENT_BYTES] * SEGMENTS
    # What the journal does not hold any more was synced; what it holds is true.
    replayed = list(Spool(_after_power_failure(spool, tmp_path / "after")).iter_files())
    assert 0 < len(replayed) < rounds
    for path in replayed:
        assert (tmp_path / "after" / path).read_bytes() == spool.absolute(path).read_bytes()


def test_many_threads_share_the_journal(spool: Spool, tmp_path: Path) -> None:
    kept: dict[str, bytes] = {}

    def store(seed: int) -> None:
        for number in range(20):
            content = bytes([seed, number]) * 2_000
            kept[_keep(spool, content)] = content

    threads = [threading.Thread(target=store, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 80
    for path, content in kept.items():
        assert spool.absolute(path).read_bytes() == b"head" + content
    for path in Spool(_after_power_failure(spool, tmp_path / "after")).iter_files():
        assert (tmp_path / "after" / path).read_bytes() == b"head" + kept[path]


def test_a_stop_makes_all_durable_and_empties_the_journal(tmp_path: Path) -> None:
    with _open(tmp_path / "spool") as spool:
        wait_until(lambda: spool.has_journal)
        path = _keep(spool, b"data")
    assert not spool.has_journal
    spool.remove(path)
    assert list(_open(tmp_path / "spool").iter_files()) == []
    assert not [each for each in threading.enumerate() if each.name == "node-journal"]


def test_a_stopped_spool_goes_on_without_its_journal_and_can_start_again(tmp_path: Path) -> None:
    with _open(tmp_path / "spool") as spool:
        pass
    _keep(spool, b"late")
    with spool:
        wait_until(lambda: spool.has_journal)
        _keep(spool, b"again")
    assert len(list(spool.iter_files())) == 2


def test_what_is_young_only_is_held(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    inner = journal_module.sync_file_system

    def sync(descriptor: int) -> None:
        inner(descriptor)
        synced.set()

    monkeypatch.setattr(journal_module, "sync_file_system", sync)
    monkeypatch.setattr(journal_module, "MAX_AGE_S", 0.05)
    _keep(spool, b"data")
    assert synced.wait(20)


def test_a_large_file_takes_the_other_way(spool: Spool, tmp_path: Path) -> None:
    _keep(spool, os.urandom(400_000))
    assert list(Spool(_after_power_failure(spool, tmp_path / "after")).iter_files()) == []


def test_without_room_for_it_there_is_no_journal_and_files_are_synced(tmp_path: Path) -> None:
    huge = 1 << 50
    with capture_logs() as logs, _open(tmp_path / "spool", journal_bytes=huge) as spool:
        wait_until(lambda: logs)
        path = _keep(spool, b"data")
        assert not spool.has_journal
    assert [each["event"] for each in logs] == ["node.journal_off"]
    assert spool.absolute(path).read_bytes() == b"headdata"
    assert list((spool.root / "journal").iterdir()) == []


# ---------------------------------------------------------------- disks that fail

Fail = Callable[[Callable[[int], bool]], None]


@pytest.fixture
def fail_writes(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Lets ``os.pwrite`` fail with EIO for sizes that a condition picks."""
    inner = os.pwrite

    def arm(condition: Callable[[int], bool]) -> None:
        def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
            if condition(len(data)):
                raise OSError(errno.EIO, "Input/output error")
            return inner(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", pwrite)

    return arm


def test_a_record_that_cannot_be_written_is_a_refused_store(
    spool: Spool, fail_writes: Fail, tmp_path: Path
) -> None:
    fail_writes(lambda size: size > PAGE_BYTES)
    with pytest.raises(SpoolFailedError, match="EIO"):
        _keep(spool, b"data")
    assert list(spool.iter_files()) == []
    assert list(Spool(_after_power_failure(spool, tmp_path / "after")).iter_files()) == []


def test_a_file_that_cannot_be_written_leaves_no_record(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def write(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", write)
        with pytest.raises(SpoolFailedError, match="EIO"):
            _keep(spool, b"refused")
    taken = _keep(spool, b"taken")
    assert list(spool.iter_files()) == [taken]
    assert list(Spool(_after_power_failure(spool, tmp_path / "after")).iter_files()) == [taken]


def test_files_that_the_kernel_could_not_sync_are_written_again_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with capture_logs() as logs, _open(tmp_path / "spool") as spool:
        wait_until(lambda: spool.has_journal)
        path = _keep(spool, b"data")
        spool.absolute(path).write_bytes(b"lost")  # what a broken disk makes of it
        monkeypatch.setattr(journal_module, "sync_file_system", fail)
    assert "node.journal_rewrites_files" in [each["event"] for each in logs]
    assert spool.absolute(path).read_bytes() == b"headdata"


def test_while_nothing_can_be_synced_the_records_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken, capture_logs() as logs:
        with _open(tmp_path / "spool") as spool:
            wait_until(lambda: spool.has_journal)
            path = _keep(spool, b"data")
            broken.setattr(journal_module, "sync_file_system", fail)
            broken.setattr(os, "fsync", fail)
        assert "node.journal_stuck" in [each["event"] for each in logs]
    spool.remove(path)
    assert list(_open(tmp_path / "spool").iter_files()) == [path]


def test_a_sync_of_the_file_system_tells_what_failed() -> None:
    with pytest.raises(OSError, match="descriptor") as caught:
        journal_module.sync_file_system(-1)
    assert caught.value.errno == errno.EBADF
