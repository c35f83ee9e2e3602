"""Power failures: copies of a disk as it was in one moment, and nodes that start on them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simulators.inspection import assert_held, assert_whole, generations_of, journal_of, look_at
from simulators.lone_node import LoneNode
from simulators.small_disk import SmallDisk, image_disk, make_image, repair_image


@dataclass(slots=True, kw_only=True)
class Crash:
    """The disk at the moment when the power failed, and what had been acknowledged before."""

    image: Path
    acknowledged: dict[str, bytes]


class Power:
    """A disk in an image, and copies of it as it was in one moment."""

    def __init__(self, folder: Path, vault: SmallDisk, vault_image: Path) -> None:
        self._folder = folder
        self._vault = vault
        self._vault_image = vault_image
        self.image = vault.folder / "image"
        self.crashes: list[Crash] = []

    def fail(self, acknowledged: dict[str, bytes]) -> None:
        """Copy what is on the disk: of what the page cache has, only what was synced."""
        with self._vault.frozen():
            self._keep(self.image, acknowledged)

    def fail_with_cache(self, acknowledged: dict[str, bytes]) -> None:
        """Copy what no power failure takes: only what was forced out of the disk's own cache, too.

        Once: the disk is broken then. A write past the page cache (O_DIRECT) is on the disk for
        ``fail``; here it is in a cache, as in most disks, until a sync flushes that.
        """
        self._vault.shut_down()
        left = self._folder / "left.image"
        subprocess.run(["cp", self._vault_image, left], check=True)
        with image_disk(self._folder / "left", left) as vault:
            self._keep(vault.folder / self.image.name, acknowledged)

    def _keep(self, image: Path, acknowledged: dict[str, bytes]) -> None:
        crash = Crash(image=self._folder / f"crash-{len(self.crashes)}", acknowledged=acknowledged)
        subprocess.run(["cp", image, crash.image], check=True)  # holes stay holes
        self.crashes.append(crash)

    def survive(self) -> list[Survivor]:
        """Start a node on each copy: it must hold everything."""
        return [
            _survive(crash, self._folder / f"after-{number}")
            for number, crash in enumerate(self.crashes)
        ]


@contextlib.contextmanager
def power_supply(folder: Path, size_bytes: int) -> Iterator[Power]:
    """Make an empty disk; the copies stand in ``folder``."""
    vault_image = folder / "vault.image"
    make_image(vault_image, 2 * size_bytes)
    with image_disk(folder / "vault", vault_image) as vault:
        power = Power(folder, vault, vault_image)
        make_image(power.image, size_bytes)
        yield power


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """What a power failure had left."""

    rows_lost: int
    files_lost: int
    """Gone or torn; the journal had them."""
    generations: frozenset[bytes]
    """Of the journal's segments."""


def _survive(crash: Crash, folder: Path) -> Survivor:
    repair_image(crash.image)
    folder.mkdir()
    node = LoneNode(folder=folder)  # with a journal or not: it replays what it finds
    with image_disk(folder / "disk", crash.image) as disk, contextlib.ExitStack() as stack:
        node.state_dir = disk.folder / "state"
        rows_lost = len(crash.acknowledged) - look_at(node.database, node.spool).rows
        files_lost = sum(
            not (node.spool / path).exists() or (node.spool / path).read_bytes() != content
            for path, content in journal_of(node.spool).items()
        )
        generations = frozenset(generations_of(node.spool))
        stack.enter_context(node)
        held = look_at(node.database, node.spool)
        assert_whole(held)
        assert_held(held, node.spool, crash.acknowledged)
    return Survivor(rows_lost=rows_lost, files_lost=files_lost, generations=generations)
