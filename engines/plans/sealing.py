"""The secret that tells what this device made from what it did not.

It is drawn once, lies beside the plans, and is read by nobody but this account. It is never shown:
not in a representation, a log, an error or a copy to another process.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import NoReturn

from engines.durable import write_durably
from engines.errors import PlanStoreError

SECRET_NAME = "secret"  # noqa: S105 - a file's name
SECRET_BYTES = 32
_SECRET_MODE = 0o600
_MODE_BITS = 0o7777


class Seal:
    """Seals and checks messages with HMAC-SHA256."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "Seal(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a seal is not copied: its secret stays in the process that read it")

    def mac(self, message: bytes) -> bytes:
        """Return the 32 bytes that only who has the secret can make for a message."""
        return hmac.digest(self._secret, message, "sha256")

    def admits(self, message: bytes, mac: bytes) -> bool:
        """Say whether a message was sealed with this secret; in the same time for every answer."""
        return hmac.compare_digest(self.mac(message), mac)


def read_seal(folder: Path) -> Seal | None:
    """Return the seal of a folder, or None where none was made yet.

    Raises:
        PlanStoreError: The secret is not ours alone, or not a secret.
        OSError: It cannot be read.
    """
    path = folder / SECRET_NAME
    try:
        # A pipe must not make us wait, and what a link points to is not what we made.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unfit(path, f"cannot be read ({error.strerror})") from error
    try:
        fault = _fault(os.fstat(descriptor))
        if fault is not None:
            raise _unfit(path, fault)
        secret = os.read(descriptor, SECRET_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(secret) != SECRET_BYTES:
        raise _unfit(path, f"has not {SECRET_BYTES} bytes")
    return Seal(secret)


def make_seal(folder: Path) -> Seal:
    """Draw the secret of a folder that has none.

    Whoever calls this is the only writer in the folder, and has looked with ``read_seal``.

    Raises:
        OSError: The disk refused.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    write_durably(folder / SECRET_NAME, [secret], mode=_SECRET_MODE)
    return Seal(secret)


def _fault(found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    if found.st_uid != os.geteuid():
        return "belongs to another account"
    if found.st_mode & _MODE_BITS != _SECRET_MODE:
        return f"has mode {found.st_mode & _MODE_BITS:04o}, not {_SECRET_MODE:04o}"
    return None


def _unfit(path: Path, fault: str) -> PlanStoreError:
    return PlanStoreError(
        f"{path} {fault}, so what it seals proves nothing: run this as the account that runs the "
        "device; if that is so already, remove the file, and the engines are built anew"
    )
