"""Real file systems on image files, one with a folder under fscrypt, one on a LUKS volume.

Each is a context manager that yields the folder to look at; ``DiskRefusedError`` says why this
machine does not allow it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SIZE_BYTES = 64 << 20
# linux/fscrypt.h
_ADD_KEY = 0xC050_6617
_SET_POLICY = 0x800C_6613
_KEY_BY_IDENTIFIER = 2
_KEY_BYTES = 64
_FAST = ("--pbkdf-force-iterations", "1000")  # a key of random bytes needs no stretching
_AES_256_XTS, _AES_256_CTS, _PAD_32 = 1, 4, 3


class DiskRefusedError(Exception):
    """The kernel or a tool of this machine refused."""


@contextlib.contextmanager
def plain_disk(folder: Path, *, features: str = "") -> Iterator[Path]:
    """Mount an ext4 file system of its own."""
    image = _image(folder)
    _call("mkfs.ext4", "-q", *(("-O", features) if features else ()), str(image))
    with _mounted(folder, str(image), "-o", "loop") as place:
        yield place


@contextlib.contextmanager
def fscrypt_folder(folder: Path) -> Iterator[Path]:
    """Make a folder whose files the file system encrypts with a key of this run."""
    with plain_disk(folder, features="encrypt") as place:
        inside = place / "state"
        inside.mkdir()
        identifier = _add_key(place)
        policy = struct.pack("<BBBB4x16s", 2, _AES_256_XTS, _AES_256_CTS, _PAD_32, identifier)
        _ioctl(inside, _SET_POLICY, policy)
        yield inside


@contextlib.contextmanager
def luks_disk(folder: Path) -> Iterator[Path]:
    """Mount an ext4 file system on a LUKS volume."""
    image, key = _image(folder), folder / "key"
    key.write_bytes(secrets.token_bytes(_KEY_BYTES))
    name = f"edge-triage-{secrets.token_hex(4)}"
    unlock = ("--key-file", str(key))
    _call(
        "cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2", *_FAST, str(image), *unlock
    )
    _call("cryptsetup", "open", str(image), name, *unlock)
    try:
        _call("mkfs.ext4", "-q", f"/dev/mapper/{name}")
        with _mounted(folder, f"/dev/mapper/{name}") as place:
            yield place
    finally:
        _call("cryptsetup", "close", name)


def _image(folder: Path) -> Path:
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(_SIZE_BYTES)
    return image


@contextlib.contextmanager
def _mounted(folder: Path, source: str, *options: str) -> Iterator[Path]:
    place = folder / "disk"
    place.mkdir()
    _call("mount", *options, source, str(place))
    try:
        yield place
    finally:
        _call("umount", str(place))


def _add_key(place: Path) -> bytes:
    raw = secrets.token_bytes(_KEY_BYTES)
    argument = struct.pack("<II32xI36x", _KEY_BY_IDENTIFIER, 0, len(raw)) + raw
    return _ioctl(place, _ADD_KEY, argument)[8:24]


def _ioctl(folder: Path, request: int, argument: bytes) -> bytes:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    buffer = bytearray(argument)
    try:
        fcntl.ioctl(handle, request, buffer)
    except OSError as error:
        raise DiskRefusedError(f"fscrypt: {error.strerror}") from error
    finally:
        os.close(handle)
    return bytes(buffer)


def _call(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DiskRefusedError(f"{command[0]} is not installed") from error
    if done.returncode:
        words = " ".join(done.stderr.split())
        raise DiskRefusedError(f"{command[0]}: {words}")
