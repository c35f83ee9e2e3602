"""Real disks that are full, broken or read-only: refused clearly, nothing lost, well by itself."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from simulators.ct_slices import write_ct_slice
from simulators.inspection import assert_held, assert_whole, look_at
from simulators.lone_node import LoneNode
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

from dicom_node.requestor import VERIFICATION_PAIR, Connection, RequestorTimeouts
from dicom_node.scu import outgoing_file
from dicom_node.status import StoreStatus

_WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=f"no disks: {_WHY_NOT}")

both_paths = pytest.mark.parametrize(
    "fast_path", [True, False], ids=["straight from the socket", "through the library"]
)

_TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=15.0, answer_s=60.0)
_SIZE = 500  # half a megabyte
_MANY = 200
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


def _on_disk(folder: Path, disk: SmallDisk, *, fast_path: bool, reserve: int = 0) -> LoneNode:
    node = LoneNode(folder=folder, fast_path=fast_path, min_free_bytes=reserve)
    node.state_dir = disk.folder / "state"
    return node


# ---------------------------------------------------------------- full


@both_paths
@both_disks
def test_at_the_reserve_stores_are_refused_while_the_index_has_room(
    make_disk: MakeDisk, fast_path: bool, tmp_path: Path
) -> None:
    with (
        make_disk(tmp_path) as disk,
        _on_disk(tmp_path, disk, fast_path=fast_path, reserve=_RESERVE_BYTES) as node,
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


@both_paths
@both_disks
def test_on_a_disk_that_is_full_to_the_last_byte_stores_are_refused(
    make_disk: MakeDisk, fast_path: bool, tmp_path: Path
) -> None:
    with make_disk(tmp_path) as disk, _on_disk(tmp_path, disk, fast_path=fast_path) as node:
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
    with make_disk(tmp_path) as disk, _on_disk(tmp_path, disk, fast_path=True) as node:
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


# ---------------------------------------------------------------- broken


@both_paths
def test_on_a_disk_that_loses_writes_nothing_acknowledged_is_lost(
    fast_path: bool, tmp_path: Path
) -> None:
    """The image is larger than the memory that it lies in: at some block, writing fails."""
    with memory_disk(tmp_path / "memory", 24 * MIB) as memory:
        image = memory.folder / "image"
        make_image(image, 96 * MIB)
        with image_disk(tmp_path / "disk", image) as disk:
            with _on_disk(tmp_path, disk, fast_path=fast_path) as node:
                scanner = Scanner(node, tmp_path)
                with scanner.association() as connection:
                    scanner.send_until_refused(connection)
                    connection.echo()
                assert node.is_alive
            assert len(scanner.held) >= 2
        memory.remount(f"size={256 * MIB}")
        repair_image(image)
        with image_disk(tmp_path / "disk", image), node:
            scanner.assert_kept()
            with scanner.association() as connection:
                assert scanner.send(connection) == StoreStatus.SUCCESS


# ---------------------------------------------------------------- read-only


@both_paths
def test_a_spool_that_turns_read_only_under_load_refuses_until_it_is_writable_again(
    fast_path: bool, tmp_path: Path
) -> None:
    make_image(tmp_path / "image", 256 * MIB)
    node = LoneNode(folder=tmp_path, fast_path=fast_path)
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


@both_paths
def test_a_state_folder_that_the_kernel_turned_read_only_is_whole_after_the_repair(
    fast_path: bool, tmp_path: Path
) -> None:
    """What ext4 does when it finds itself damaged: the node lives, refuses, and loses nothing."""
    image = tmp_path / "image"
    make_image(image, 64 * MIB)
    with (
        image_disk(tmp_path / "disk", image) as disk,
        _on_disk(tmp_path, disk, fast_path=fast_path) as node,
    ):
        scanner = Scanner(node, tmp_path)
        with scanner.association() as connection:
            assert scanner.send(connection) == StoreStatus.SUCCESS
            disk.remount("abort")
            for _ in range(3):
                assert scanner.send(connection) == StoreStatus.OUT_OF_RESOURCES
            connection.echo()
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


@both_paths
def test_what_was_acknowledged_is_there_after_the_power_failed(
    fast_path: bool, tmp_path: Path
) -> None:
    """A copy of the disk in the moment of the answer holds only what was synced until then."""
    image, crashes = tmp_path / "image", list[tuple[Path, dict[str, bytes]]]()
    make_image(image, 96 * MIB)
    with (
        image_disk(tmp_path / "disk", image) as disk,
        _on_disk(tmp_path, disk, fast_path=fast_path) as node,
    ):
        scanner = Scanner(node, tmp_path)
        with scanner.association() as connection:
            for number in range(5):
                assert scanner.send(connection) == StoreStatus.SUCCESS
                crashes.append((tmp_path / f"crash-{number}", dict(scanner.held)))
                shutil.copyfile(image, crashes[-1][0])
    rows_lost = 0
    for number, (crash, acknowledged) in enumerate(crashes):
        repair_image(crash)
        with (
            image_disk(tmp_path / f"after-{number}", crash) as disk,
            contextlib.ExitStack() as stack,
        ):
            survivor = _unstarted(tmp_path / f"node-{number}", disk)
            rows_lost += len(acknowledged) - look_at(survivor.database, survivor.spool).rows
            stack.enter_context(survivor)
            held = look_at(survivor.database, survivor.spool)
            assert_whole(held)
            assert_held(held, survivor.spool, acknowledged)
    # Rows are committed without a sync: were none ever lost, this would not have been a crash.
    assert rows_lost > 0


def _unstarted(folder: Path, disk: SmallDisk) -> LoneNode:
    folder.mkdir()
    node = LoneNode(folder=folder)
    node.state_dir = disk.folder / "state"
    return node
