"""A reader of the worklist page's server-sent events who notes when each study's flag arrives."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from edge_runtime.errors import DeviceFaultError

_TIMEOUT_S = 15.0  # the page's heartbeat comes every 3 s
_RAISED = "raised"  # the row of a study that was suspected; its own look otherwise
_DECIDED = frozenset({_RAISED, "suspected", "not-suspected", "not-analysed", "failed"})
_LOOK = re.compile(r'<tr [^>]*class="study ([a-z-]+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A row of the page whose study is decided, as it arrived."""

    study_key: str
    look: str
    mono_us: int
    """CLOCK_BOOTTIME."""


class PageWatch:
    """Reads ``/events`` on a thread of its own while the ``with`` block runs."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        self._thread = threading.Thread(target=self._read, name="page-watch")
        self._changed = threading.Condition()
        self._sightings: list[Sighting] = []
        self._ended: Exception | None = None

    def __enter__(self) -> PageWatch:
        """Open the stream.

        Raises:
            DeviceFaultError: the page does not answer.
        """
        try:
            self._connection.request("GET", "/events")
            self._response = self._connection.getresponse()
        except OSError as error:
            raise DeviceFaultError(f"the worklist page does not answer: {error}") from error
        if self._response.status != http.client.OK:
            raise DeviceFaultError(f"the worklist page answers {self._response.status}")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the stream."""
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def wait_for(self, study_key: str, *, since_mono_us: int, limit_s: float) -> Sighting:
        """Wait for the first decided row of a study that arrived at ``since_mono_us`` or later.

        Raises:
            DeviceFaultError: it does not come in time, or the stream ended.
        """
        deadline_s = time.monotonic() + limit_s
        with self._changed:
            while True:
                for sighting in self._sightings:
                    if sighting.study_key == study_key and sighting.mono_us >= since_mono_us:
                        return sighting
                left_s = deadline_s - time.monotonic()
                if self._ended is not None:
                    raise DeviceFaultError("the page's events ended") from self._ended
                if left_s <= 0:
                    raise DeviceFaultError(f"no flag on the page within {limit_s:.0f} s")
                self._changed.wait(left_s)

    def _read(self) -> None:
        try:
            while line := self._response.readline():
                mono_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
                if line.startswith(b"data: {"):
                    self._note(json.loads(line[len(b"data: ") :]), mono_us)
            raise DeviceFaultError("the page closed the stream")  # noqa: TRY301 - ends like an error
        except (OSError, ValueError, DeviceFaultError, http.client.HTTPException) as error:
            with self._changed:
                self._ended = error
                self._changed.notify_all()

    def _note(self, event: Mapping[str, object], mono_us: int) -> None:
        found = decided_rows(event)
        with self._changed:
            self._sightings += [
                Sighting(study_key=key, look=look, mono_us=mono_us) for key, look in found.items()
            ]
            self._changed.notify_all()


def decided_rows(event: Mapping[str, object]) -> dict[str, str]:
    """Return the look of each row of an event whose study is decided, by study key."""
    rows = event.get("rows")
    if not isinstance(rows, dict):
        return {}  # a heartbeat
    looks = {key: match[1] for key, row in rows.items() if (match := _LOOK.search(row))}
    return {key: look for key, look in looks.items() if look in _DECIDED}
