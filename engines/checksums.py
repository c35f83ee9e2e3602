"""CHECKSUMS: which files a package holds, byte for byte.

The file has one line for each other file of the folder, ``sha256  relative/path``, sorted by path,
with ``/`` between folders and a line feed after each line. It does not list itself.

Invariants of ``verify_checksums``:

* Nothing is opened before the listing itself is known to be well formed and bounded.
* The folder holds exactly the listed files: none missing, none extra, no links, no devices.
* No path leads out of the folder, and no link is followed.
* Whoever reads a file afterwards does so through ``VerifiedFile.read``, which checks the digest of
  the very bytes that it returns: a file changed after the check is not used.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from engines.errors import PackageIntegrityError

CHECKSUMS = "CHECKSUMS"

MAX_FILES = 4096
"""A model, its papers, and golden studies of a few hundred slices."""
MAX_FILE_BYTES = 512 * 1024**2
"""The model is the largest file; ONNX itself ends at 2 GiB."""
MAX_PACKAGE_BYTES = 1024**3
MAX_DEPTH = 8
MAX_CHECKSUMS_BYTES = MAX_FILES * 320

_CHUNK_BYTES = 1024**2
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._/-]{1,240})")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFile:
    """A file whose digest is known."""

    path: Path
    sha256: str

    def read(self, limit_bytes: int) -> bytes:
        """Returns the content, which has exactly the known digest.

        Raises:
            PackageIntegrityError: The file is larger than ``limit_bytes``, is a link, or changed.
        """
        content = read_bounded(self.path, limit_bytes)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise PackageIntegrityError(
                f"{self.path.name} does not match its checksum; install the package again"
            )
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFolder:
    """A package folder that held exactly these files."""

    folder: Path
    digest: str
    """SHA-256 of CHECKSUMS: it names this very package."""
    digests: Mapping[str, str]
    """SHA-256 of each file, by relative path."""

    def file(self, relative: str) -> VerifiedFile:
        """Returns one file of the listing.

        Raises:
            PackageIntegrityError: The package has no such file.
        """
        if relative not in self.digests:
            raise PackageIntegrityError(f"the package has no {relative}; its maker must add it")
        return VerifiedFile(path=self.folder / relative, sha256=self.digests[relative])


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Reads a regular file of at most ``limit_bytes`` without following a link in its last part.

    Raises:
        PackageIntegrityError: It is missing, unreadable, no regular file, or too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PackageIntegrityError(f"{path.name} is no regular file")
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise PackageIntegrityError(f"{path.name} cannot be read ({error.strerror})") from error
    if len(content) > limit_bytes:
        raise PackageIntegrityError(f"{path.name} is larger than {limit_bytes} bytes")
    return content


def verify_checksums(folder: Path) -> VerifiedFolder:
    """Checks that ``folder`` holds exactly what its CHECKSUMS lists.

    Raises:
        PackageIntegrityError: It does not; the text names the first file at fault.
    """
    listing = read_bounded(folder / CHECKSUMS, MAX_CHECKSUMS_BYTES)
    digests = parse_checksums(listing)
    sizes = scan_folder(folder)
    missing, extra = sorted(digests.keys() - sizes), sorted(sizes.keys() - digests)
    if missing:
        raise PackageIntegrityError(f"{missing[0]} is listed in {CHECKSUMS} but missing")
    if extra:
        raise PackageIntegrityError(f"{_shown(extra[0])} is not listed in {CHECKSUMS}")
    for relative, digest in digests.items():
        if digest_of(folder / relative) != digest:
            raise PackageIntegrityError(
                f"{relative} does not match its checksum; install the package again"
            )
    return VerifiedFolder(
        folder=folder, digest=hashlib.sha256(listing).hexdigest(), digests=digests
    )


def parse_checksums(listing: bytes) -> dict[str, str]:
    """Reads a listing into relative path -> SHA-256.

    Raises:
        PackageIntegrityError: A line is malformed, leads out of the folder, or is out of order.
    """
    if not listing.endswith(b"\n"):
        raise PackageIntegrityError(f"{CHECKSUMS} is empty or cut short")
    digests: dict[str, str] = {}
    spelt: dict[str, str] = {}
    previous = ""
    for number, line in enumerate(listing[:-1].split(b"\n"), start=1):
        match = _LINE.fullmatch(line.decode("ascii", errors="replace"))
        if match is None or number > MAX_FILES:
            raise PackageIntegrityError(f"{CHECKSUMS}, line {number}: not 'sha256  path'")
        digest, relative = match.groups()
        if not _stays_inside(relative) or relative == CHECKSUMS:
            raise PackageIntegrityError(f"{CHECKSUMS}, line {number}: path is not allowed")
        if relative <= previous:
            raise PackageIntegrityError(f"{CHECKSUMS}, line {number}: not sorted, or twice")
        if not _is_spelt_alike(relative, spelt):
            raise PackageIntegrityError(f"{CHECKSUMS}, line {number}: a name in two spellings")
        digests[relative] = digest
        previous = relative
    return digests


def render_checksums(digests: Mapping[str, str]) -> bytes:
    """Writes relative path -> SHA-256 as a listing."""
    return "".join(f"{digests[path]}  {path}\n" for path in sorted(digests)).encode("ascii")


def scan_folder(folder: Path) -> dict[str, int]:
    """Returns relative path -> size in bytes of every file under ``folder`` but CHECKSUMS.

    Raises:
        PackageIntegrityError: A link, a device, an odd name, too many files, or too many bytes.
    """
    sizes: dict[str, int] = {}
    total = 0
    # Closed when a file is refused in the middle: the folders that it has open are so too.
    with closing(_walk(folder, "", 0)) as found:
        for relative, size in found:
            if relative == CHECKSUMS:
                continue
            total += size
            if size > MAX_FILE_BYTES or total > MAX_PACKAGE_BYTES or len(sizes) >= MAX_FILES:
                raise PackageIntegrityError(
                    f"the package is too large at {_shown(relative)}: at most {MAX_FILES} files, "
                    f"{MAX_FILE_BYTES} bytes each, {MAX_PACKAGE_BYTES} bytes together"
                )
            sizes[relative] = size
    return sizes


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file of at most MAX_FILE_BYTES.

    Raises:
        PackageIntegrityError: It cannot be read, is a link, or has grown too large.
    """
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            left = MAX_FILE_BYTES
            while chunk := file.read(_CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise PackageIntegrityError(f"{path.name} grew while it was read")
                digest.update(chunk)
    except OSError as error:
        raise PackageIntegrityError(f"{path.name} cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _walk(folder: Path, prefix: str, depth: int) -> Generator[tuple[str, int], None, None]:
    if depth > MAX_DEPTH:
        raise PackageIntegrityError(f"the package has folders deeper than {MAX_DEPTH}")
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                relative = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(Path(entry.path), relative + "/", depth + 1)
                elif entry.is_file(follow_symlinks=False):
                    yield relative, entry.stat(follow_symlinks=False).st_size
                else:
                    raise PackageIntegrityError(f"{_shown(relative)} is a link or a device")
    except OSError as error:
        raise PackageIntegrityError(
            f"the package folder cannot be read ({error.strerror})"
        ) from error


def _stays_inside(relative: str) -> bool:
    parts = relative.split("/")
    return len(parts) <= MAX_DEPTH + 1 and not any(part in {"", ".", ".."} for part in parts)


def _is_spelt_alike(relative: str, spelt: dict[str, str]) -> bool:
    """Not so on a disk that does not tell cases apart: one file would hide another."""
    parts = relative.split("/")
    names = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
    return all(spelt.setdefault(name.lower(), name) == name for name in names)


def _shown(name: str) -> str:
    """A name that somebody else chose, fit for one line of text."""
    return ascii(name[:120])
