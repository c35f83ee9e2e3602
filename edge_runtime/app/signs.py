"""Signs of starting from a thread of their own, while the process's own thread can give none.

A library builds an engine within one call, and may say nothing for minutes: TensorRT while it times
one layer, ONNX Runtime's providers for a GPU all the time. Such a call lets other threads run (it
releases Python's lock): this was seen with builds of TensorRT-RTX 1.7 and with sessions of ONNX
Runtime 1.31 on a processor, not with TensorRT itself nor on a GPU. Where one does not, no sign
comes, and the supervisor ends the process as it did before there were any.

* Signs end a while after the last word of progress, so that what hangs is ended all the same.
* Signs end when the device is told to stop: under systemd each would put the end off
  (sd_notify(3), EXTEND_TIMEOUT_USEC).
"""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import structlog

from edge_runtime.clock import Clock
from edge_runtime.process import Pulse

_log = structlog.get_logger()


class SignsMeanwhile:
    """Signs for the length of a ``with`` block."""

    def __init__(
        self, pulse: Pulse, clock: Clock, stop: threading.Event, *, limit_s: float
    ) -> None:
        """Nothing is said yet.

        Args:
            pulse: of the thread that enters; it may go on giving signs itself.
            clock: the one that ``limit_s`` is measured with.
            stop: the device was told to stop.
            limit_s: for how long signs go on without a word of progress.
        """
        self._pulse = pulse.for_another_thread()
        self._clock = clock
        self._stop = stop
        self._limit_s = limit_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signs")
        self._last_us = clock.now().mono_us

    def __enter__(self) -> SignsMeanwhile:
        """Begin."""
        self.progress()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; whoever goes on working gives signs itself."""
        self._over.set()
        self._thread.join()

    def progress(self) -> None:
        """Note that what is waited for has made progress: the limit counts anew."""
        self._last_us = self._clock.now().mono_us

    def _run(self) -> None:
        is_told = False
        with contextlib.closing(self._pulse):
            while not self._stop.is_set():
                silent_s = (self._clock.now().mono_us - self._last_us) / 1_000_000
                if silent_s < self._limit_s:
                    is_told = False
                    self._pulse.starting()
                elif not is_told:
                    is_told = True
                    _log.error("process.silent", limit_s=self._limit_s)
                if self._over.wait(self._pulse.interval_s):
                    return
