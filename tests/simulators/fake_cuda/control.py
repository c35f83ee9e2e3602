"""What a test asks of the fake libcuda in its own process."""

from __future__ import annotations

import ctypes
from enum import Enum


class Counted(str, Enum):
    """What the fake counts while it is alive."""

    DEVICE = "device"
    PINNED = "pinned"
    STREAM = "stream"
    EVENT = "event"
    GRAPH = "graph"
    GRAPH_EXEC = "graph_exec"
    MODULE = "module"
    RETAINED = "retained"
    """How often a primary context is held."""
    CURRENT = "current"
    """Contexts on the stacks of all threads."""


class CudaCode(int, Enum):
    """CUresults that tests inject."""

    INVALID_VALUE = 1
    OUT_OF_MEMORY = 2
    ILLEGAL_ADDRESS = 700
    LAUNCH_FAILED = 719
    UNKNOWN = 999


class FakeDriver:
    """The fake that this process has loaded."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.fake_cuda_live.restype = ctypes.c_long
        library.fake_cuda_calls.restype = ctypes.c_long
        library.fake_cuda_abandoned.restype = ctypes.c_long
        library.fake_cuda_violations.restype = ctypes.c_long
        library.fake_cuda_last_violation.restype = ctypes.c_char_p

    def live(self) -> dict[str, int]:
        """What is alive, zeros left out."""
        counts = {
            each.value: int(self._library.fake_cuda_live(each.value.encode())) for each in Counted
        }
        return {kind: count for kind, count in counts.items() if count}

    def fail(self, function: str, code: CudaCode, *, after: int = 0) -> None:
        """Let a call of a function fail once.

        Args:
            function: Its symbol, such as cuMemAlloc_v2; "kernel" for a kernel that fails while it
                runs.
            code: Its answer.
            after: How many calls go well before.
        """
        self._library.fake_cuda_fail(function.encode(), int(code), ctypes.c_long(after))

    def calls(self, function: str) -> int:
        """How often a function was called."""
        return int(self._library.fake_cuda_calls(function.encode()))

    @property
    def abandoned(self) -> int:
        """How many things were still there when a sound context was destroyed."""
        return int(self._library.fake_cuda_abandoned())

    @property
    def violations(self) -> str | None:
        """What the driver was asked that a real one need not survive."""
        count = int(self._library.fake_cuda_violations())
        last = self._library.fake_cuda_last_violation().decode()
        return f"{count}, the last: {last}" if count else None


def loaded_fake() -> FakeDriver | None:
    """The fake, where this process finds one as its libcuda."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return FakeDriver(library) if hasattr(library, "fake_cuda_live") else None
