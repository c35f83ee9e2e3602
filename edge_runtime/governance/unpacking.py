"""Copies a package out of a folder or an archive, with the bounds of a package held throughout.

Whoever made the archive is not trusted. Invariants, whatever it holds:

* Nothing is written outside the target; no link, device or other special file is made or followed.
* No more than the bounds of ``engines.checksums`` is ever written or held in memory: what an
  archive says of itself is checked before it is believed, and counted while it is read.
* A name comes once, of the characters that CHECKSUMS allows. Files are new, synced, and not
  executable.

What the bytes are worth is not judged here: ``engines.loading`` does that on the copy.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol, cast

from edge_runtime.governance.errors import ArchiveError
from engines.checksums import (
    CHECKSUMS,
    MAX_CHECKSUMS_BYTES,
    MAX_DEPTH,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_PACKAGE_BYTES,
    scan_folder,
)
from telemetry.durable import sync_folder

_CHUNK_BYTES = 1024**2
_MAX_READ_BYTES = 2 * 1024**2
"""One read of an archive's own structures; a listing of MAX_FILES names stays below."""
_MAX_MEMBERS = 2 * MAX_FILES
"""Files and folders."""
_TAR_OVERHEAD = 4096
"""Headers and padding of one member."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,240}(/[A-Za-z0-9._-]{1,240})*")
_MAX_NAME_CHARACTERS = 400
_ZIP_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others may ask for gigabytes of memory to be unpacked."""
_ZIP_ENCRYPTED = 0x1
_GZIP_MAGIC, _ZIP_MAGIC = b"\x1f\x8b", b"PK"


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class _Target:
    """Counts what is written below a folder."""

    folder: Path
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    members: int = 0
    bytes_left: int = MAX_PACKAGE_BYTES + MAX_CHECKSUMS_BYTES

    def take_name(self, name: str) -> str:
        """Check a member's name; every member counts."""
        self.members += 1
        if self.members > _MAX_MEMBERS:
            raise ArchiveError(f"it holds more than {_MAX_MEMBERS} files and folders")
        clean = name.removeprefix("./").removesuffix("/")
        if len(name) > _MAX_NAME_CHARACTERS or not _NAME.fullmatch(clean):
            raise ArchiveError(f"the name {name[:120]!a} is not allowed in a package")
        parts = clean.split("/")
        # One folder more than a package may have: many archives hold the package in a folder.
        if len(parts) > MAX_DEPTH + 2 or any(part in {".", ".."} for part in parts):
            raise ArchiveError(f"the name {clean[:120]!a} leads out of the package, or too deep")
        return clean

    def add_folder(self, name: str) -> None:
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            relative = "/".join(parts[:count])
            if relative in self.files:
                raise ArchiveError(f"{relative} is a file and a folder")
            if relative not in self.folders:
                self.folders.add(relative)
                (self.folder / relative).mkdir(mode=0o755)

    def add_file(self, name: str, source: _Source, size: int) -> None:
        if name in self.files or name in self.folders:
            raise ArchiveError(f"{name} comes twice")
        if len(self.files) >= MAX_FILES + 1:
            raise ArchiveError(f"it holds more than {MAX_FILES} files")
        if not 0 <= size <= min(MAX_FILE_BYTES, self.bytes_left):
            raise ArchiveError(
                f"it is too large at {name}: at most {MAX_FILE_BYTES} bytes a file, "
                f"{MAX_PACKAGE_BYTES} together"
            )
        if "/" in name:
            self.add_folder(name.rpartition("/")[0])
        self.files.add(name)
        self.bytes_left -= size
        _write_file(self.folder / name, source, size)


def _write_file(path: Path, source: _Source, size: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        left = size
        while left:
            chunk = source.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise ArchiveError(f"{path.name} is cut short")
            left -= len(chunk)
            file.write(chunk)
        if source.read(1):
            raise ArchiveError(f"{path.name} is longer than it says")
        file.flush()
        os.fsync(file.fileno())


def unpack(source: Path, folder: Path) -> Path:
    """Copy the package in ``source``, a folder or a .zip, .tar or .tar.gz file, into ``folder``.

    Returns:
        Where the package lies: ``folder``, or the one folder in it that the archive holds.

    Raises:
        ArchiveError: it breaks a rule, or is damaged; ``folder`` holds a part then.
        PackageIntegrityError: a folder holds what a package must not hold.
        OSError: the disk refuses, or ``source`` cannot be read.
    """
    target = _Target(folder)
    if source.is_dir():
        _copy_folder(source, target)
    elif source.is_file():
        _copy_archive(source, target)
    else:
        raise ArchiveError(f"{source.name} is neither a folder nor a file")
    _sync_folders(folder)
    return _root_of(folder)


def _root_of(folder: Path) -> Path:
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir():
        return entries[0]
    return folder


def _sync_folders(folder: Path) -> None:
    for path, _, _ in os.walk(folder):
        sync_folder(Path(path))


def _copy_folder(source: Path, target: _Target) -> None:
    names = scan_folder(source)
    for name in (CHECKSUMS, *sorted(names)):
        path = source / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise ArchiveError(f"{name} is missing: a package needs it") from error
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ArchiveError(f"{name} is no regular file")
            target.add_file(target.take_name(name), file, status.st_size)


def _copy_archive(source: Path, target: _Target) -> None:
    try:
        with source.open("rb") as file:
            magic = file.read(2)
            file.seek(0)
            if magic == _ZIP_MAGIC:
                _copy_zip(file, target)
            elif magic == _GZIP_MAGIC:
                with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                    _copy_tar(cast("IO[bytes]", unpacked), target)
            else:
                _copy_tar(file, target)
    # What the two readers are known to raise on damaged files, besides their own errors.
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        ValueError,
        NotImplementedError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ArchiveError(
            f"it is damaged, or no .zip, .tar or .tar.gz file ({type(error).__name__})"
        ) from error


class _BoundedReads(io.RawIOBase):
    """A file of which no single read takes much memory, whatever its structures ask for."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = _MAX_READ_BYTES + 1
        data = self._file.read(min(size, _MAX_READ_BYTES + 1))
        if len(data) > _MAX_READ_BYTES:
            raise ArchiveError("its own structures are too large for a package")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise ArchiveError("its members lie outside of it")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _copy_zip(file: IO[bytes], target: _Target) -> None:
    with zipfile.ZipFile(_BoundedReads(file)) as archive:
        infos = archive.infolist()
        if len(infos) > _MAX_MEMBERS:
            raise ArchiveError(f"it holds more than {_MAX_MEMBERS} files and folders")
        for info in infos:
            _check_zip_member(info)
            name = target.take_name(info.filename)
            if info.is_dir():
                target.add_folder(name)
                continue
            with archive.open(info) as member:
                target.add_file(name, member, info.file_size)


def _check_zip_member(info: zipfile.ZipInfo) -> None:
    shown = ascii(info.orig_filename[:120])
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise ArchiveError(f"{shown} is a link or a device")
    if info.flag_bits & _ZIP_ENCRYPTED:
        raise ArchiveError(f"{shown} is encrypted: pack the package without a password")
    if info.compress_type not in _ZIP_METHODS:
        raise ArchiveError(f"{shown} is packed by another method than deflate")
    if info.orig_filename != info.filename:
        raise ArchiveError(f"the name {shown} is not allowed in a package")


class _Forward(io.RawIOBase):
    """What a tar file is read from: forwards only, and no more than a package can fill."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._place = 0
        self._left = MAX_PACKAGE_BYTES + MAX_CHECKSUMS_BYTES + _MAX_MEMBERS * _TAR_OVERHEAD

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_READ_BYTES:
            raise ArchiveError("its own structures are too large for a package")
        data = self._file.read(size)
        self._place += len(data)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(f"it unpacks to more than {MAX_PACKAGE_BYTES} bytes")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence != os.SEEK_SET or offset < self._place:
            raise ArchiveError("its members overlap")
        while self._place < offset:
            if not self.read(min(offset - self._place, _CHUNK_BYTES)):
                raise ArchiveError("it is cut short")
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _copy_tar(file: IO[bytes], target: _Target) -> None:
    with tarfile.TarFile(fileobj=_Forward(file), mode="r", errorlevel=2) as archive:
        for member in _members(archive):
            shown = ascii(member.name[:120])
            if member.isdir():
                if member.name.rstrip("/") in {"", "."}:  # `tar -C FOLDER .`
                    continue
                target.add_folder(target.take_name(member.name))
                continue
            # A sparse file may say that it is a terabyte of zeros.
            if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.sparse is not None:
                raise ArchiveError(f"{shown} is a link, a device or a sparse file")
            stream = archive.extractfile(member)
            if stream is None:
                raise ArchiveError(f"{shown} is no regular file")
            with stream:
                target.add_file(target.take_name(member.name), stream, member.size)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        yield member
