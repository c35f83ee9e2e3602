"""How the C library keeps the memory that arrays leave behind."""

from __future__ import annotations

import contextlib
import ctypes

# mallopt(3). One image and what its preprocessing makes of it lie far below both; a whole volume
# lies above, and goes back to the kernel at once.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 32 * 1024 * 1024
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 16 * 1024 * 1024


def keep_freed_images() -> None:
    """Let the next image have the memory of the last one.

    glibc gives every freed array of a megabyte back to the kernel, and asks for it anew, zeroed
    page by page. Where images keep their full size, that is most of the time that reading and
    preparing them takes; where small ones stay, they keep the heap together anyway.
    """
    with contextlib.suppress(AttributeError):  # another C library than glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
