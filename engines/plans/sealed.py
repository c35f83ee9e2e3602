"""The form of a sealed file: what it is, what it is of, and content that nobody changed.

``MAGIC``, MAC (32 bytes), length of the header (4 bytes, big-endian), header (JSON), content.
The MAC is of the header; the header holds kind, key and the SHA-256 of the content.

Invariants of reading:

* No link is followed, no pipe waited for, and nothing larger than its kind may be is read.
* Nothing of the header is looked at before its MAC is admitted.
* The content that is returned is the very one whose digest was checked.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from engines.errors import EngineMemoryError, PlanRejectedError
from engines.plans.key import MAX_KEY_BYTES
from engines.plans.sealing import Seal

MAGIC = b"edge-triage sealed 1\n"
_START = struct.Struct(f">{len(MAGIC)}s32sI")
_MAX_HEADER_BYTES = 2 * MAX_KEY_BYTES + 1024
"""Quotation marks of the key are written as two characters."""

MIB = 1 << 20

_ITS_OWN_FAULT = frozenset(
    {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EIO}
)
"""What opening says of a file of another account, a link, a socket, a device, or a bad block."""


class SealedKind(str, Enum):
    """What a file holds; its name ends so."""

    PLAN = "plan"
    PROOF = "proof"
    TIMING = "timing"
    """How long a library's kernels took here, which spares measuring them again."""
    RUNTIME = "runtime"
    """What a library compiled when a plan ran first."""
    KERNEL = "kernel"
    """Our own code, compiled for this GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of one kind."""

    each_bytes: int
    files: int
    together_bytes: int


BOUNDS = {
    # Twice the largest model: a plan holds its weights, and code for each profile.
    SealedKind.PLAN: Bounds(each_bytes=1024 * MIB, files=32, together_bytes=4096 * MIB),
    SealedKind.PROOF: Bounds(each_bytes=MIB // 64, files=32, together_bytes=MIB),
    SealedKind.TIMING: Bounds(each_bytes=128 * MIB, files=4, together_bytes=256 * MIB),
    # One beside each plan; a compiled kernel is small beside a plan's weights.
    SealedKind.RUNTIME: Bounds(each_bytes=128 * MIB, files=32, together_bytes=512 * MIB),
    SealedKind.KERNEL: Bounds(each_bytes=16 * MIB, files=16, together_bytes=64 * MIB),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedHeader:
    """What a sealed file says about itself."""

    kind: SealedKind
    key: bytes
    sequence: int
    """Grows with each file that is kept; a clock may be set back."""
    sha256: str
    """Of the content."""
    size_bytes: int
    """Of the content."""

    def encode(self, seal: Seal) -> bytes:
        """Return what stands before the content."""
        members = {
            "kind": self.kind.value,
            "key": self.key.decode("ascii"),
            "sequence": self.sequence,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
        }
        header = json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
        return _START.pack(MAGIC, seal.mac(header), len(header)) + header


def header_of(kind: SealedKind, key: bytes, content: bytes, sequence: int) -> SealedHeader:
    """Describe a content that is to be sealed."""
    return SealedHeader(
        kind=kind,
        key=key,
        sequence=sequence,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedContent:
    """A content that this device sealed."""

    header: SealedHeader
    content: bytes


def read_sealed(path: Path, seal: Seal, *, kind: SealedKind, key: bytes) -> SealedContent:
    """Read a sealed file that must be of a certain kind and key.

    Raises:
        PlanRejectedError: This device did not seal it, or as something else.
        EngineMemoryError: There is not so much memory.
        FileNotFoundError: There is none.
        OSError: The machine cannot open files now.
    """
    with _opened(path, BOUNDS[kind].each_bytes) as file:
        header = _read_header(file, seal, kind)
        if header.key != key:
            raise PlanRejectedError("it was sealed for something else and renamed")
        try:
            content = file.read(header.size_bytes)
        except MemoryError as error:
            raise EngineMemoryError(
                f"no memory to read {header.size_bytes // MIB} MiB of a stored {kind.value}: stop "
                "what else uses memory on this device"
            ) from error
        except OSError as error:
            raise PlanRejectedError(f"it cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != header.sha256:
        raise PlanRejectedError("its content was changed after it was sealed")
    return SealedContent(header=header, content=content)


def read_sealed_header(path: Path, seal: Seal, *, kind: SealedKind) -> SealedHeader:
    """Read what a sealed file says about itself; its content is not looked at.

    Raises:
        PlanRejectedError: This device did not seal it, or as another kind.
        FileNotFoundError: There is none.
        OSError: The machine cannot open files now.
    """
    with _opened(path, BOUNDS[kind].each_bytes) as file:
        return _read_header(file, seal, kind)


def _opened(path: Path, limit_bytes: int) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ITS_OWN_FAULT:
            raise PlanRejectedError(f"it cannot be opened ({error.strerror})") from error
        raise
    try:
        _check_file(os.fstat(descriptor), limit_bytes)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_file(found: os.stat_result, limit_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise PlanRejectedError("it is no regular file")
    if found.st_size > limit_bytes + _START.size + _MAX_HEADER_BYTES:
        raise PlanRejectedError(f"it is larger than {limit_bytes} bytes")


def _read_header(file: BinaryIO, seal: Seal, kind: SealedKind) -> SealedHeader:
    try:
        start = file.read(_START.size)
        if len(start) != _START.size:
            raise PlanRejectedError("it is cut short")
        magic, mac, length = _START.unpack(start)
        if magic != MAGIC or length > _MAX_HEADER_BYTES:
            raise PlanRejectedError("it is not in the form of this software")
        header = file.read(length)
        size_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise PlanRejectedError(f"it cannot be read ({error.strerror})") from error
    if not seal.admits(header, mac):
        raise PlanRejectedError("it was not sealed by this device")
    members = json.loads(header)
    if members["kind"] != kind.value:
        raise PlanRejectedError(f"it was sealed as a {members['kind']} and renamed")
    if size_bytes != _START.size + length + members["size_bytes"]:
        raise PlanRejectedError("it is longer or shorter than when it was sealed")
    return SealedHeader(
        kind=kind,
        key=members["key"].encode("ascii"),
        sequence=members["sequence"],
        sha256=members["sha256"],
        size_bytes=members["size_bytes"],
    )
