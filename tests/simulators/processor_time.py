"""A limit on processor time, as a kernel sets it: a machine that is busy with others uses none."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End the block with an error once this process has computed for longer (setitimer(2))."""

    def end(_number: int, _frame: object) -> None:
        raise AssertionError(f"it takes more than {seconds} s of processor time")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
