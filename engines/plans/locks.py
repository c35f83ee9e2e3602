"""One at a time, across threads and processes; the kernel frees a lock when its holder dies.

The file of a lock is removed by its holder. Who gets a lock therefore looks whether the file still
stands under its name, and else begins again: two holders would otherwise hold two files.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engines.errors import EngineBuildError

_LOOK_S = 0.1
"""Between two looks at a lock that another one holds."""


@contextmanager
def held(path: Path, *, on_wait: Callable[[], bool] | None = None) -> Iterator[None]:
    """Hold a lock for the length of a block; wait for it first.

    Args:
        path: In a folder that exists. A thread that holds it must not ask for it again.
        on_wait: Called about ten times a second while another one holds it; False gives up.

    Raises:
        EngineBuildError: ``on_wait`` said so.
        OSError: The disk refused.
    """
    descriptor = _take(path, on_wait)
    try:
        yield
    finally:
        _release(path, descriptor)


def remove_if_free(path: Path) -> None:
    """Remove the file of a lock whose holder died.

    Raises:
        OSError: The disk refused.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if _is_taken(descriptor) and _stands(path, descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Say whether somebody holds a lock; who asks for it in that moment may be told the same.

    Raises:
        OSError: The disk refused.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _is_taken(descriptor)
    finally:
        os.close(descriptor)


def _take(path: Path, on_wait: Callable[[], bool] | None) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _wait(descriptor, on_wait)
            if _stands(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _wait(descriptor: int, on_wait: Callable[[], bool] | None) -> None:
    if on_wait is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    pause = threading.Event()
    while not _is_taken(descriptor):
        if not on_wait():
            raise EngineBuildError(
                "told to stop while another process builds this engine: start again, and it is "
                "found when that one is done"
            )
        pause.wait(_LOOK_S)


def _is_taken(descriptor: int) -> bool:
    """Take the lock if nobody holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stands(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    with suppress(OSError):  # a file that stays does no harm
        path.unlink()
    # A child that was forked meanwhile has the file open too: closing alone frees nothing.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
