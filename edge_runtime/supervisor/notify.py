"""The sd_notify protocol, both ends: systemd's own on a device, ours under ``edge-triage run``.

A process sends READY=1, WATCHDOG=1 and the other words of ``Notice`` to the socket named by
NOTIFY_SOCKET (sd_notify(3)), whoever listens there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

SUPERVISOR_VARIABLE = "EDGE_TRIAGE_SUPERVISOR_PID"
"""Tells a process which parent it must not outlive; unset where systemd is the parent."""

_MAX_MESSAGE_BYTES = 4096
_CREDENTIAL_BYTES = 12  # struct ucred: pid, uid, gid


class Notice(str, Enum):
    """What a process says."""

    STARTING = "EXTEND_TIMEOUT_USEC=60000000"
    """It has yet to be ready, and makes progress: give it another minute."""
    READY = "READY=1"
    ALIVE = "WATCHDOG=1"
    STOPPING = "STOPPING=1"


class Notifier:
    """Sends notices; does nothing where nobody listens."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        name = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name

    def send(self, notice: Notice) -> None:
        """Send one notice; a supervisor that is gone must not hurt the work."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.sendto(notice.value.encode(), socket.MSG_DONTWAIT, self._address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A notice and the process that the kernel says sent it."""

    pid: int
    notice: Notice


class NotifySocket:
    """The supervisor's end: an abstract socket (unix(7)), which a kill cannot leave behind."""

    def __init__(self) -> None:
        self.address = f"@edge-triage-{os.getpid()}-{secrets.token_hex(8)}"
        """What NOTIFY_SOCKET says; ``@`` stands for the leading zero byte."""
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )

    def __enter__(self) -> NotifySocket:
        """Listen."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + self.address[1:])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening; the name goes with the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, for ``select``."""
        return self._socket.fileno()

    def receive(self) -> Iterator[Message]:
        """Yield what has arrived; unknown words are passed over."""
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _MAX_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIAL_BYTES)
                )
            except BlockingIOError:
                return
            pid = next(
                (
                    int.from_bytes(value[:4], "little")
                    for level, kind, value in ancillary
                    if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS
                ),
                0,
            )
            for line in data.decode("ascii", "replace").splitlines():
                with contextlib.suppress(ValueError):
                    yield Message(pid=pid, notice=Notice(line))
