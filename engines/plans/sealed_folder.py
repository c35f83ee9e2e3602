"""A folder of what this device made, each file sealed; and a quarantine for what it did not make.

Invariants:

* What ``find`` returns was kept by this device, under this kind and key, and is unchanged. All else
  counts as absent, and is moved away with a reason beside it.
* A file is there whole or as it was before, whenever this process is killed or the disk is full.
* Writers take turns; readers wait for nobody.
* No clock is asked: what is older is told by a number that is sealed with the content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from engines.checksums import read_bounded
from engines.durable import DRAFT, sync_folder, write_durably
from engines.errors import PackageIntegrityError, PlanRejectedError, PlanStoreError
from engines.plans.key import MAX_KEY_BYTES
from engines.plans.locks import held, remove_if_free
from engines.plans.sealed import (
    BOUNDS,
    MIB,
    SealedContent,
    SealedHeader,
    SealedKind,
    header_of,
    read_sealed,
    read_sealed_header,
)
from engines.plans.sealing import Seal, make_seal, read_seal

QUARANTINE = "quarantine"
REASON = ".reason.json"
BUILDING = ".building"
"""How the name of the lock of a build ends."""

_WRITING = ".writing"
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_OTHERS_WRITE = 0o022

_QUARANTINED_FILES = 8
_QUARANTINED_BYTES = 1024 * MIB
"""One that is larger is not kept."""
_QUARANTINED = re.compile(r"([0-9]{6,12})-[0-9a-f]{64}\.[a-z]+")
_MAX_REASON_CHARACTERS = 500
_MAX_NOTE_BYTES = 16 * 1024
"""Of a reason with its name: every character may be written as an escape of 12."""

_log = structlog.get_logger()


def name_of(kind: SealedKind, key: bytes) -> str:
    """Return the name of a file of one kind and key."""
    return f"{hashlib.sha256(key).hexdigest()}.{kind.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutAside:
    """What was moved to the quarantine."""

    number: int
    """Of what was moved later it is larger."""
    name: str
    """Of the file, which begins with the number."""
    reason: str
    """One line; empty where the disk was too full to keep it."""


class SealedFolder:
    """A folder of sealed files, of this device alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ---------------------------------------------------------------- reading

    def find(self, kind: SealedKind, key: bytes) -> SealedContent | None:
        """Return what was kept under a key, or None.

        Raises:
            PlanStoreError: The folder or its secret cannot be used.
            EngineMemoryError: There is not so much memory.
        """
        with self._told("read"):
            path = self.folder / name_of(kind, key)
            found = self.look(kind, key)
            if found is None and self._is_fit() and os.path.lexists(path):
                found = self._find_among_writers(path, kind, key)
            return found

    def look(self, kind: SealedKind, key: bytes) -> SealedContent | None:
        """Return what ``find`` would, but change nothing and wait for nobody.

        Raises:
            PlanStoreError: The folder or its secret cannot be used.
            EngineMemoryError: There is not so much memory.
        """
        with self._told("read"):
            seal = read_seal(self.folder) if self._is_fit() else None
            if seal is None:
                return None
            try:
                return read_sealed(self.folder / name_of(kind, key), seal, kind=kind, key=key)
            except (PlanRejectedError, FileNotFoundError):
                return None

    def headers(self, kind: SealedKind) -> list[tuple[str, SealedHeader | None]]:
        """Return the digest of each key that has a file, and what the file says about itself.

        The header is None where this device did not seal it; that is left as it is.

        Raises:
            PlanStoreError: The folder or its secret cannot be used.
        """
        with self._told("read"):
            seal = read_seal(self.folder) if self._is_fit() else None
            return [(name[:64], self._header(name, kind, seal)) for name in self._names(kind)]

    def put_aside(self, kind: SealedKind) -> tuple[PutAside, ...]:
        """Return what lies in quarantine, the oldest first; nothing is changed.

        Raises:
            PlanStoreError: The folder cannot be used.
        """
        with self._told("read"):
            # What somebody else's folder holds is not what we put aside.
            if not self._is_fit() or (self.folder / QUARANTINE).is_symlink():
                return ()
            files = {number: name.removesuffix(REASON) for number, _, name in self._quarantined()}
            return tuple(
                PutAside(
                    number=number,
                    name=name,
                    reason=_reason_in(self.folder / QUARANTINE / f"{name}{REASON}"),
                )
                for number, name in files.items()
                if name.endswith(f".{kind.value}")
            )

    # ---------------------------------------------------------------- writing

    def keep(self, kind: SealedKind, key: bytes, content: bytes) -> SealedHeader:
        """Seal a content and keep it; the oldest ones give way where there are too many.

        Args:
            kind: Its bounds count.
            key: ASCII without control characters, at most ``MAX_KEY_BYTES``.
            content: At least 1 byte.

        Raises:
            ValueError: The key is none.
            PlanStoreError: It is empty or too large, or the folder or the disk refuses.
        """
        if len(key) > MAX_KEY_BYTES or not key.decode("ascii").isprintable():
            raise ValueError(f"a key is printable ASCII of at most {MAX_KEY_BYTES} bytes")
        if not 1 <= len(content) <= BOUNDS[kind].each_bytes:
            raise PlanStoreError(
                f"a {kind.value} of {len(content)} bytes is not kept: 1 to "
                f"{BOUNDS[kind].each_bytes} may be"
            )
        with self._told("written"), self._writing():
            seal = read_seal(self.folder) or make_seal(self.folder)
            header = header_of(kind, key, content, self._next_sequence(kind, seal))
            path = self.folder / name_of(kind, key)
            if path.is_dir() and not path.is_symlink():
                self._move_away(path, "a folder had its name")
            write_durably(path, [header.encode(seal), content], mode=_FILE_MODE)
            self._make_room(kind, seal, newest=path.name)
        _log.info("plans.kept", kind=kind.value, key=path.name[:12], size_bytes=len(content))
        return header

    def remove(self, kind: SealedKind, digest: str) -> bool:
        """Remove what was kept under the key of this digest; say whether there was something.

        Raises:
            PlanStoreError: The folder or the disk refuses.
        """
        with self._told("written"):
            path = self.folder / f"{digest}.{kind.value}"
            if not self._is_fit() or not os.path.lexists(path):
                return False
            with self._writing():
                _discard(path)
                sync_folder(self.folder)
            return True

    def quarantine(self, kind: SealedKind, key: bytes, reason: str) -> None:
        """Move what was kept under a key away, so that it is found no more.

        Raises:
            PlanStoreError: The folder or the disk refuses.
        """
        with self._told("written"):
            path = self.folder / name_of(kind, key)
            if self._is_fit() and os.path.lexists(path):
                with self._writing():
                    self._move_away(path, reason)

    @contextmanager
    def making(self, key: bytes, *, on_wait: Callable[[], bool] | None = None) -> Iterator[None]:
        """Be the only one, of all threads and processes, that makes the content of a key.

        Args:
            key: A thread that makes it must not ask for it again.
            on_wait: Called about ten times a second while another one does; False gives up.

        Raises:
            PlanStoreError: The folder or the disk refuses.
            EngineBuildError: ``on_wait`` gave up.
        """
        with ExitStack() as lock:
            with self._told("written"):
                self._make_folder()
                path = self._lock(f".{hashlib.sha256(key).hexdigest()}{BUILDING}")
                lock.enter_context(held(path, on_wait=on_wait))
            yield

    # --------------------------------------------------------------- plumbing

    def _find_among_writers(self, path: Path, kind: SealedKind, key: bytes) -> SealedContent | None:
        """Look again when nobody writes: what was refused may have been replaced meanwhile."""
        with self._writing():
            seal = read_seal(self.folder) or make_seal(self.folder)
            try:
                return read_sealed(path, seal, kind=kind, key=key)
            except FileNotFoundError:
                return None
            except PlanRejectedError as error:
                self._move_away(path, str(error))
                return None

    def _header(self, name: str, kind: SealedKind, seal: Seal | None) -> SealedHeader | None:
        if seal is None:
            return None
        try:
            header = read_sealed_header(self.folder / name, seal, kind=kind)
        except (PlanRejectedError, FileNotFoundError):
            return None
        return header if name == name_of(kind, header.key) else None

    def _names(self, kind: SealedKind) -> list[str]:
        pattern = re.compile(rf"[0-9a-f]{{64}}\.{kind.value}")
        with suppress(FileNotFoundError):
            return sorted(
                path.name for path in self.folder.iterdir() if pattern.fullmatch(path.name)
            )
        return []

    def _next_sequence(self, kind: SealedKind, seal: Seal) -> int:
        headers = [self._header(name, kind, seal) for name in self._names(kind)]
        return 1 + max((header.sequence for header in headers if header is not None), default=0)

    def _make_room(self, kind: SealedKind, seal: Seal, *, newest: str) -> None:
        """Remove the oldest until the rest is within bounds; what is not ours goes first."""
        bounds = BOUNDS[kind]
        found = []
        for name in self._names(kind):
            header = self._header(name, kind, seal)
            size_bytes = (self.folder / name).lstat().st_size
            found.append((header.sequence if header else 0, size_bytes, name))
        found = sorted(each for each in found if each[2] != newest)
        newest_bytes = (self.folder / newest).lstat().st_size
        while found and (
            len(found) >= bounds.files
            or newest_bytes + sum(size for _, size, _ in found) > bounds.together_bytes
        ):
            name = found.pop(0)[2]
            _discard(self.folder / name)
            _log.info("plans.removed", kind=kind.value, key=name[:12])

    def _move_away(self, path: Path, reason: str) -> None:
        """Counts as absent from now on, also where the disk is too full to say why."""
        quarantine = self.folder / QUARANTINE
        number = 1 + max((found[0] for found in self._quarantined()), default=0)
        target = quarantine / f"{number:06d}-{path.name}"
        words = {"reason": reason[:_MAX_REASON_CHARACTERS], "name": path.name}
        with suppress(OSError):
            if quarantine.is_symlink():
                quarantine.unlink()
            quarantine.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            note = json.dumps(words, sort_keys=True).encode("ascii") + b"\n"
            write_durably(quarantine / f"{target.name}{REASON}", [note], mode=_FILE_MODE)
        try:
            if path.lstat().st_size > _QUARANTINED_BYTES:
                _discard(path)
            else:
                path.rename(target)
                sync_folder(quarantine)
        except OSError:
            _discard(path)
        sync_folder(self.folder)
        self._empty_quarantine()
        _log.warning("plans.quarantined", key=path.name[:12], kind=path.suffix[1:], reason=reason)

    def _quarantined(self) -> list[tuple[int, int, str]]:
        """Number, size and name of each thing in quarantine, oldest first."""
        found = []
        for path in self._in_quarantine():
            match = _QUARANTINED.fullmatch(path.name.removesuffix(REASON))
            if match is not None:
                found.append((int(match[1]), path.lstat().st_size, path.name))
        return sorted(found)

    def _empty_quarantine(self) -> None:
        found = self._quarantined()
        while found and (
            len({number for number, _, _ in found}) > _QUARANTINED_FILES
            or sum(size for _, size, _ in found) > _QUARANTINED_BYTES
        ):
            _discard(self.folder / QUARANTINE / found.pop(0)[2])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the only writer here; what others left who were killed is cleared away."""
        self._make_folder()
        with held(self._lock(_WRITING)):
            self._sweep()
            yield

    def _lock(self, name: str) -> Path:
        """Return where a lock lies; what cannot be one makes way."""
        path = self.folder / name
        if not _is_lock(path):
            _discard(path)
        return path

    def _sweep(self) -> None:
        for path in [*self.folder.iterdir(), *self._in_quarantine()]:
            if path.name.startswith(".") and path.name.endswith(DRAFT):
                _discard(path)
            elif path.name.startswith(".") and path.name.endswith(BUILDING):
                if _is_lock(path):
                    remove_if_free(path)
                else:
                    _discard(path)

    def _in_quarantine(self) -> list[Path]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return list((self.folder / QUARANTINE).iterdir())
        return []

    def _make_folder(self) -> None:
        if not self._is_fit():
            self.folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
            self._is_fit()

    def _is_fit(self) -> bool:
        """Say whether the folder is there; it must be ours, and nobody else may write in it."""
        try:
            found = self.folder.stat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode):
            raise PlanStoreError(f"{self.folder} is no folder: move it away")
        if found.st_uid != os.geteuid():
            raise PlanStoreError(
                f"{self.folder} belongs to another account: run this as the account that runs the "
                "device"
            )
        if found.st_mode & _OTHERS_WRITE:
            raise PlanStoreError(
                f"others may write into {self.folder}: take that right from them (chmod go-w)"
            )
        return True

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PlanStoreError(
                f"{self.folder} cannot be {doing} ({error.strerror or type(error).__name__}): see "
                "that the disk has room and is not read-only, and run this as the account that "
                "runs the device"
            ) from error


def _reason_in(note: Path) -> str:
    """Return the reason that a note gives, fit for a line; whoever wrote it is not trusted."""
    try:
        words = json.loads(read_bounded(note, _MAX_NOTE_BYTES))
    except (PackageIntegrityError, ValueError, RecursionError):
        return ""
    reason = words.get("reason") if isinstance(words, dict) else None
    if not isinstance(reason, str):
        return ""
    line = "".join(each if each.isprintable() else " " for each in reason[:_MAX_REASON_CHARACTERS])
    return " ".join(line.split())


def _is_lock(path: Path) -> bool:
    """Say whether a lock may be taken here: a plain file, or nothing yet."""
    return not os.path.lexists(path) or (path.is_file() and not path.is_symlink())


def _discard(path: Path) -> None:
    """Remove whatever somebody put there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
