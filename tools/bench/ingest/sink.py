"""The physical limit: a receiver that does nothing but make bytes durable.

``python -I sink.py FOLDER PORT [--direct]``, run as a file so that only the standard library is
loaded. Each object comes behind its length (8 bytes, little endian); it is read into one buffer a
connection, written, synced, renamed, its folder is synced, and one byte 0 answers. ``--direct``
writes past the page cache (O_DIRECT, open(2)).
"""

from __future__ import annotations

import argparse
import errno
import itertools
import mmap
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_BUFFER_BYTES = 16 * 1024 * 1024
_PAGE = mmap.PAGESIZE
_LENGTH_BYTES = 8


def serve(folder: Path, port: int, *, is_direct: bool) -> None:
    """Accept connections until killed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | (os.O_DIRECT if is_direct else 0)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    names = itertools.count()
    with socket.create_server(("127.0.0.1", port), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            threading.Thread(
                target=_receive_all,
                args=(connection, folder, directory, flags, names),
                daemon=True,
                name="sink",
            ).start()


def _receive_all(
    connection: socket.socket, folder: Path, directory: int, flags: int, names: Iterator[int]
) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # An anonymous mapping begins on a page, as O_DIRECT wants it.
    with connection, mmap.mmap(-1, _BUFFER_BYTES) as buffer, memoryview(buffer) as view:
        while True:
            prefix = connection.recv(_LENGTH_BYTES, socket.MSG_WAITALL)
            if len(prefix) < _LENGTH_BYTES:
                return
            name = str(next(names))
            handle = os.open(folder / f".{name}", flags, 0o600)
            try:
                _receive(connection, handle, view, int.from_bytes(prefix, "little"))
            finally:
                os.close(handle)
            (folder / f".{name}").rename(folder / name)
            os.fsync(directory)
            connection.sendall(b"\x00")


def _receive(connection: socket.socket, handle: int, view: memoryview, length: int) -> None:
    left = length
    while left:
        piece = min(left, len(view))
        got = 0
        while got < piece:
            count = connection.recv_into(view[got:piece])
            if not count:
                raise ConnectionResetError
            got += count
        # O_DIRECT writes whole pages; what is too much is cut off again.
        whole = -(-piece // _PAGE) * _PAGE
        if os.write(handle, view[:whole]) < whole:
            raise OSError(errno.ENOSPC, "the disk is full")
        left -= piece
    os.ftruncate(handle, length)
    os.fsync(handle)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--direct", action="store_true")
    told = parser.parse_args()
    serve(told.folder, told.port, is_direct=told.direct)


if __name__ == "__main__":
    main()
