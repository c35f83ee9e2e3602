"""Real disks that are full, broken or read-only: refused clearly, nothing lost, well by itself."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from simulators.ct_slices import write_ct_slice
from simulators.inspection import assert_held, assert_whole, journal_of, look_at
from simulators.load import KINDS, make_template
from simulators.lone_node import LoneNode, Way
from simulators.power import power_supply
from simulators.pusher import Pusher
from simulators.small_disk import (
    MIB,
    SmallDisk,
    image_disk,
    make_image,
    memory_disk,
    repair_image,
    why_not,
)
from simulators.waiting import wait_until

from dicom_node.journal import SEGMENTS
from dicom_node.journal_format import PAGE_BYTES
from dicom_node.requestor import VERIFICATION_PAIR, Connection, RequestorTimeouts
from dicom_node.scu import outgoing_file
from dicom_node.status import StoreStatus

_WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=f"no disks: {_WHY_NOT}")

each_way = pytest.mark.parametrize("way", Way, ids=lambda way: way.value)

_TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=15.0, answer_s=60.0)
# Pixels a side: 180 KB, which go through the journal where there is one.
_SIZE = 300
_MANY = 400
_RESERVE_BYTES = 6 * MIB

MakeDisk = Callable[[Path], contextlib.AbstractContextManager[SmallDisk]]


@contextlib.contextmanager
def _in_memory(folder: Path) -> Iterator[SmallDisk]:
    with memory_disk(folder / "disk", 32 * MIB) as disk:
        yield disk


@contextlib.contextmanager
def _in_an_image(folder: Path) -> Iterator[SmallDisk]:
    make_image(folder / "image", 40 * MIB)
    with image_disk(folder / "disk", folder / "image") as disk:
        yield disk


both_disks = pytest.mark.parametrize("make_disk", [_in_memory, _in_an_image], ids=["tmpfs", "ext4"])


class Scanner:
    """One association after the other; it keeps what was acknowledged."""

    def __init__(self, node: LoneNode, folder: Path, *, study: str = "1.2.3") -> None:
        self.node = node
        self.held: dict[str, bytes] = {}
        self._path = folder / f"{study}.dcm"
        self._study = study
        self._number = 0
        self.draw()

    def draw(self) -> None:
        """Write the next instance of the study."""
        self._number += 1
        write_ct_slice(self._path, number=self._number, hu=7, study=self._study, size=_SIZE)

    @contextlib.contextmanager
    def association(self) -> Iterator[Connection]:
        """Open one, and release it at the end."""
        connection = Connection(
            self.node.address,
            calling_ae_title="SCANNER",
            pairs=[outgoing_file(self._path).pair, VERIFICATION_PAIR],
            timeouts=_TIMEOUTS,
        )
        yield connection
        connection.close()

    def send(self, connection: Connection) -> int:
        """Send the instance; after Success the next send brings another one."""
        outgoing = outgoing_file(self._path)
        assert not isinstance(outgoing.data_set, bytes)
        status = connection.store(outgoing)
        if status == StoreStatus.SUCCESS:
            data = self._path.read_bytes()
            self.held[outgoing.sop_instance_uid] = data[outgoing.data_set[1] :]
            self.draw()
        return status

    def send_until_refused(self, connection: Connection) -> None:
        """Send as long as it is taken, then be refused a few times more."""
        statuses = [self.send(connection) for _ in range(3)]
        while statuses[-1] == StoreStatus.SUCCESS:
            assert len(statuses) < _MANY
            statuses.append(self.send(connection))
        statuses += [self.send(connection) for _ in range(5)]
        assert set(statuses) == {StoreStatus.SUCCESS, StoreStatus.OUT_OF_RESOURCES}

    def assert_kept(self, *others: Scanner) -> None:
        """Everything of the contract; for a node that has started after the fault."""
        held = look_at(self.node.database, self.node.spool)
        assert_whole(held)
        for scanner in (self, *others):
            assert_held(held, self.node.spool, scanner.held)

    def restart(self) -> None:
        """Stop and start in order."""
        assert self.node.stop() == 0
        assert self.node.start()


def _on_disk(folder: Path, disk: SmallDisk, *, way: Way, reserve: int = 0) -> LoneNode:
    node = LoneNode(
        folder=folder,
        fast_path=way.fast_path,
        journal_bytes=way.journal_bytes,
        min_free_bytes=reserve,
    )
    node.state_dir = disk.folder / "state"
    return node


# ---------------------------------------------------------------- full


@each_way
@both_disks
def test_at_the_reserve_stores_are_refused_while_the_index_has_room(
    make_disk: MakeDisk, way: Way, tmp_path: Path
) -> None:
    with (
        make_disk(tmp_path) as disk,
        _on_disk(tmp_path, disk, way=way, reserve=_RESERVE_BYTES) as node,
    ):
        disk.fill(leave_bytes=_RESERVE_BYTES + 5 * MIB)
        scanner = Scanner(node, tmp_path)
        with scanner.association() as connection:
            scanner.send_until_refused(connection)
            assert len(scanner.held) >= 2
            # What one instance and its row may take below the reserve, and no more.
            assert disk.free_bytes > _RESERVE_BYTES - 2 * MIB
            connection.echo()
            with scanner.association() as other:
                assert scanner.send(other) == StoreStatus.OUT_OF_RESOURCES
            disk.make_room()
            assert scanner.send(connection) == StoreStatus.SUCCESS
        scanner.restart()
        scanner.assert_kept()


@each_way
@both_disks
def test_on_a_disk_that_is_full_to_the_last_byte_stores_are_refused(
    make_disk: MakeDisk, way: Way, tmp_path: Path
) -> None:
    with make_disk(tmp_path) as disk, _on_disk(tmp_path, disk, way=way) as node:
        scanner = Scanner(node, tmp_path)
        with scanner.association() as connection:
            assert scanner.send(connection) == StoreStatus.SUCCESS
            disk.fill(leave_bytes=2 * MIB)
            scanner.send_until_refused(connection)
            disk.fill(leave_bytes=0)
            assert scanner.send(connection) == StoreStatus.OUT_OF_RESOURCES
            connection.echo()
            disk.make_room()
            for _ in range(3):
                assert scanner.send(connection) == StoreStatus.SUCCESS
        scanner.restart()
        scanner.assert_kept()


@both_disks
def test_on_a_full_disk_the_node_ends_with_a_remedy_and_starts_once_there_is_room(
    make_disk: MakeDisk, tmp_path: Path
) -> None:
    with make_disk(tmp_path) as disk, _on_disk(tmp_path, disk, way=Way.JOURNAL) as node:
        scanner = Scanner(node, tmp_path)
        with scanner.association() as connection:
            assert scanner.send(connection) == StoreStatus.SUCCESS
            disk.fill(leave_bytes=0)
            node.kill()
        assert not node.start()
        _assert_refused(node)
        disk.make_room()
        assert node.start()  # which the supervisor tries again and again
        with scanner.association() as connection:
            assert scanner.send(connection) == StoreStatus.SUCCESS
        scanner.restart()
        scanner.assert_kept()


def _assert_refused(node: LoneNode) -> None:
    last = json.loads(node.log.read_text("utf-8").splitlines()[-1])
    assert last["event"] == "process.refused"
    assert "free" in last["remedy"] or "disk" in last["remedy"]


@both_disks
def test_without_room_for_its_journal_the_node_syncs_each_file_until_it_starts_with_room(
    make_disk: MakeDisk, tmp_path: Path
) -> None:
    with make_disk(tmp_path) as disk:
        disk.fill(leave_bytes=6 * MIB)
        with _on_disk(tmp_path, disk, way=Way.JOURNAL) as node:
            assert b'"node.journal_off"' in node.said()
            scanner = Scanner(node, tmp_path)
            with scanner.association() as connection:
                assert scanner.send(connection) == StoreStatus.SUCCESS
            assert journal_of(node.spool) == {}
            disk.make_room()
            scanner.restart()
            assert b'"node.journal_ready"' in node.said()
            with scanner.association() as connection:
                assert scanner.send(connection) == StoreStatus.SUCCESS
            assert len(journal_of(node.spool)) == 1
            scanner.restart()
            scanner.assert_kept()


# ---------------------------------------------------------------- broken


@each_way
def test_on_a_disk_that_loses_writes_nothing_acknowledged_is_lost(way: Way, tmp_path: Path) -> None:
    """The image is larger than the memory that it lies in: at some block, writing fails."""
    with memory_disk(tmp_path / "memory", 24 * MIB) as memory:
        image = memory.folder / "image"
        make_image(image, 96 * MIB)
        with image_disk(tmp_path / "disk", image) as disk:
            with _on_disk(tmp_path, disk, way=way) as node:
                scanner = Scanner(node, tmp_path)
                with scanner.association() as connection:
                    scanner.send_until_refused(connection)
                    connection.echo()
                if way is Way.JOURNAL:  # which tries again, and must not believe a later sync
                    wait_until(lambda: node.said().count(b'"node.journal_stuck"') >= 2)
                assert node.is_alive
            assert len(scanner.held) >= 2
        memory.remount(f"size={256 * MIB}")
        repair_image(image)
        with image_disk(tmp_path / "disk", image), node:
            scanner.assert_kept()
            with scanner.association() as connection:
                assert scanner.send(connection) == StoreStatus.SUCCESS


# ---------------------------------------------------------------- read-only


@pytest.mark.parametrize("way", [Way.SYNCED, Way.LIBRARY], ids=lambda way: way.value)
def test_a_spool_that_turns_read_only_under_load_refuses_until_it_is_writable_again(
    way: Way, tmp_path: Path
) -> None:
    """With a journal nobody can turn it: the node has files open for writing."""
    make_image(tmp_path / "image", 256 * MIB)
    node = LoneNode(folder=tmp_path, fast_path=way.fast_path, journal_bytes=0)
    stop = threading.Event()
    refused = threading.Event()

    def push(scanner: Scanner) -> None:
        """On one association, which must outlive the fault."""
        with scanner.association() as connection:
            while not stop.is_set():
                if scanner.send(connection) == StoreStatus.OUT_OF_RESOURCES:
                    refused.set()
            assert scanner.send(connection) == StoreStatus.SUCCESS

    with image_disk(node.spool, tmp_path / "image") as disk, node:
        scanners = [Scanner(node, tmp_path, study=f"1.2.{number}") for number in (1, 2)]
        with ThreadPoolExecutor(2, thread_name_prefix="scanner") as pool:
            pushing = [pool.submit(push, scanner) for scanner in scanners]
            try:
                disk.remount("ro")
                wait_until(lambda: refused.is_set() or any(each.done() for each in pushing))
                disk.remount("rw")
            finally:
                stop.set()
            for each in pushing:
                each.result()
        scanners[0].restart()
        scanners[0].assert_kept(scanners[1])
        node.kill()


@each_way
def test_a_state_folder_that_the_kernel_turned_read_only_is_whole_after_the_repair(
    way: Way, tmp_path: Path
) -> None:
    """What ext4 does when it finds itself damaged: the node lives, refuses, and loses nothing."""
    image = tmp_path / "image"
    make_image(image, 64 * MIB)
    with (
        image_disk(tmp_path / "disk", image) as disk,
        _on_disk(tmp_path, disk, way=way) as node,
    ):
        scanner = Scanner(node, tmp_path)
        with scanner.association() as connection:
            for _ in range(3):
                assert scanner.send(connection) == StoreStatus.SUCCESS
            disk.remount("abort")
            for _ in range(3):
                assert scanner.send(connection) == StoreStatus.OUT_OF_RESOURCES
            connection.echo()
        if way is Way.JOURNAL:  # its files were not synced, and never will be
            wait_until(lambda: b'"node.journal_stuck"' in node.said())
        assert node.is_alive
        node.kill()
        assert not node.start()
        _assert_refused(node)
    repair_image(image)
    with image_disk(tmp_path / "disk", image), node:
        scanner.assert_kept()
        with scanner.association() as connection:
            assert scanner.send(connection) == StoreStatus.SUCCESS


# ---------------------------------------------------------------- power failure


@each_way
def test_what_was_acknowledged_is_there_after_the_power_failed(way: Way, tmp_path: Path) -> None:
    """In the moment of the answer."""
    with power_supply(tmp_path, 96 * MIB) as power:
        with (
            image_disk(tmp_path / "disk", power.image) as disk,
            _on_disk(tmp_path, disk, way=way) as node,
        ):
            scanner = Scanner(node, tmp_path)
            with scanner.association() as connection:
                for _ in range(5):
                    assert scanner.send(connection) == StoreStatus.SUCCESS
                    power.fail(dict(scanner.held))
        survivors = power.survive()
    # Rows are committed without a sync: were none ever lost, this would not have been a crash.
    assert any(each.rows_lost > 0 for each in survivors)
    assert any(each.files_lost > 0 for each in survivors) == (way is Way.JOURNAL)


@each_way
def test_what_was_acknowledged_is_there_after_the_disk_lost_its_cache(
    way: Way, tmp_path: Path
) -> None:
    """Success says that the disk was told to keep it, not only that the disk has taken it."""
    with power_supply(tmp_path, 64 * MIB) as power:
        with (
            image_disk(tmp_path / "disk", power.image) as disk,
            _on_disk(tmp_path, disk, way=way) as node,
        ):
            scanner = Scanner(node, tmp_path)
            with scanner.association() as connection:
                for _ in range(3):
                    assert scanner.send(connection) == StoreStatus.SUCCESS
                power.fail_with_cache(dict(scanner.held))
        (survivor,) = power.survive()
    assert survivor.rows_lost > 0
    assert (survivor.files_lost > 0) == (way is Way.JOURNAL)


def test_a_disk_that_loses_its_cache_keeps_what_was_synced_and_nothing_else(tmp_path: Path) -> None:
    """Of writes past the page cache into blocks that were there before, as the journal's are."""
    with power_supply(tmp_path, 40 * MIB) as power:
        with image_disk(tmp_path / "disk", power.image) as disk:
            for name in ("kept", "lost"):
                _write_page(disk.folder / name, b"0", os.O_CREAT | os.O_DSYNC)
            _write_page(disk.folder / "kept", b"1", os.O_DSYNC)
            _write_page(disk.folder / "lost", b"1", 0)
            power.fail_with_cache({})
        (crash,) = power.crashes
        with image_disk(tmp_path / "after", crash.image) as after:
            assert (after.folder / "kept").read_bytes() == b"1" * PAGE_BYTES
            assert (after.folder / "lost").read_bytes() == b"0" * PAGE_BYTES


def _write_page(path: Path, filled_with: bytes, flags: int) -> None:
    with mmap.mmap(-1, PAGE_BYTES) as page:
        page[:] = filled_with * PAGE_BYTES
        descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | flags, 0o600)
        try:
            assert os.pwrite(descriptor, page, 0) == PAGE_BYTES
        finally:
            os.close(descriptor)


# A journal record of the smallest, which most are, takes 16 KB: 500 fill the journal.
_CUTS, _FEWEST_BETWEEN, _MOST_BETWEEN = 5, 150, 600


def test_what_was_acknowledged_is_there_after_the_power_failed_under_load(tmp_path: Path) -> None:
    """At moments of chance, while segments are filled, synced and used again."""
    kinds = {kind.modality: kind for kind in KINDS}
    templates = [make_template(kinds[each], tmp_path) for each in ("CR", "MR", "CT")]
    rng = random.Random()
    stop = threading.Event()
    with power_supply(tmp_path, 160 * MIB) as power:
        with (
            image_disk(tmp_path / "disk", power.image) as disk,
            _on_disk(tmp_path, disk, way=Way.JOURNAL) as node,
            ThreadPoolExecutor(2, thread_name_prefix="pusher") as pool,
        ):
            pushers = [Pusher(node, templates, number) for number in (1, 2)]
            pushing = [pool.submit(each.push_until, stop) for each in pushers]
            try:
                for _ in range(_CUTS):
                    _push_more(pushers, rng.randint(_FEWEST_BETWEEN, _MOST_BETWEEN), pushing)
                    power.fail(_held_by(pushers))
            finally:
                stop.set()
            for each in pushing:
                each.result()
        survivors = power.survive()
    assert any(each.rows_lost > 0 for each in survivors)
    assert any(each.files_lost > 0 for each in survivors)
    # Segments were used again and again.
    assert len({found for each in survivors for found in each.generations}) > 2 * SEGMENTS


def _held_by(pushers: Sequence[Pusher]) -> dict[str, bytes]:
    return {uid: data_set for each in pushers for uid, data_set in each.held().items()}


def _push_more(pushers: Sequence[Pusher], count: int, pushing: Sequence[Future[None]]) -> None:
    """Wait until so many more are acknowledged."""
    goal = len(_held_by(pushers)) + count
    wait_until(lambda: len(_held_by(pushers)) >= goal or any(each.done() for each in pushing), 60.0)
