"""The folders of the model packages: ``models/<digest>/``, whole or not there at all.

Names that begin with a dot are not packages: ``.incoming-*`` is being filled, ``.gone-*`` is being
deleted. Whoever holds the audit chain is the only one here, so that all of these that are met are
what a crash left.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from edge_runtime.governance.errors import ModelStoreError
from edge_runtime.governance.unpacking import unpack
from engines.checksums import verify_checksums
from engines.errors import PackageIntegrityError
from engines.loading import LoadedPackage, load_package
from telemetry.durable import sync_folder

_INCOMING, _GONE = ".incoming-", ".gone-"


class PackageFolders:
    """All packages on disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, digest: str) -> Path:
        """Return where a package lies."""
        return self._root / digest

    @contextlib.contextmanager
    def unpacked(self, source: Path) -> Iterator[LoadedPackage]:
        """Unpack and check a package beside the others; it is gone again after the block.

        Raises:
            ArchiveError: ``source`` breaks a rule of unpacking.
            PackageError: the package is not what its maker sealed.
            ModelStoreError: the disk refuses, or ``source`` cannot be read.
        """
        incoming = self._root / f"{_INCOMING}{secrets.token_hex(8)}"
        try:
            with _explained(self._root, source):
                self._root.mkdir(mode=0o755, parents=True, exist_ok=True)
                incoming.mkdir(mode=0o755)
                root = unpack(source, incoming)
            yield load_package(root)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def publish(self, package: LoadedPackage) -> None:
        """Give an unpacked package its name; a damaged copy of before gives way.

        Raises:
            ModelStoreError: the disk refuses.
        """
        with _explained(self._root, package.folder):
            if self.is_whole(package.digest):
                return
            self.remove(package.digest)
            package.folder.rename(self.folder(package.digest))
            sync_folder(self._root)

    def is_whole(self, digest: str) -> bool:
        """Say whether a package lies here with every byte that its maker sealed."""
        try:
            return verify_checksums(self.folder(digest)).digest == digest
        except PackageIntegrityError:
            return False

    def load(self, digest: str) -> LoadedPackage:
        """Read a package as a worker does.

        Raises:
            ModelStoreError: its files were changed.
            PackageError: this release of the software cannot use it.
        """
        if not self.is_whole(digest):
            raise ModelStoreError(
                f"the files of {digest[:12]} were changed since they were verified: install the "
                "package again from its source, which mends them"
            )
        return load_package(self.folder(digest))

    def remove(self, digest: str) -> None:
        """Take a package away; a worker that has its files open keeps them until it closes them."""
        folder = self.folder(digest)
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.is_dir():
            gone = self._root / f"{_GONE}{secrets.token_hex(8)}"
            folder.rename(gone)
            sync_folder(self._root)
            shutil.rmtree(gone)

    def sweep(self, known: Collection[str]) -> int:
        """Take away all that is no known package; return how much that was.

        Raises:
            ModelStoreError: the disk refuses.
        """
        swept = 0
        with _explained(self._root, self._root):
            if not self._root.is_dir():
                return 0
            for name in sorted(os.listdir(self._root)):  # noqa: PTH208 - names, also odd ones
                if name in known:
                    continue
                swept += 1
                if name.startswith(_GONE):
                    shutil.rmtree(self._root / name)
                else:
                    self.remove(name)
        return swept


@contextlib.contextmanager
def _explained(root: Path, source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelStoreError(
            f"{source} cannot be copied into {root} ({error.strerror or type(error).__name__}): "
            "run this as the user that runs the device, and see that the disk has room"
        ) from error
