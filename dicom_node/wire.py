"""The receiving end of one connection: one buffer, one wait that another thread can end.

A peer that stops, or drips, in the middle of something is told from one that has nothing to say:
only inside a PDU or a message does time run (``WireStalledError``).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from typing import cast

from pynetdicom.association import Association

from dicom_node.errors import PeerError
from dicom_node.transport import ClosingSocket

BUFFER_BYTES = 64 * 1024
# Room before the first byte, for a header that is put back; see ``Wire.put_back``.
_HEADROOM_BYTES = 16
# A command and the beginning of its data set; the rest goes past this buffer where it can.
_FIRST_BYTES = 16 * 1024
# A modem is faster; who is slower is not sending an image.
MIN_BYTES_PER_S = 256
_WAIT_S = 1.0
_TIMEVAL = struct.Struct("ll")
_WANTS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class WireClosedError(PeerError):
    """The peer, or another thread of ours, has closed the connection."""


class WireStalledError(PeerError):
    """The peer stopped, or became slower than anything real, in the middle of a PDU or message."""


class AnsweringSocket(ClosingSocket):
    """What answers are sent through; none waits for a peer longer than the stalled timeout."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, *, stalled_timeout_s: float
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._stalled_timeout_s = stalled_timeout_s

    def send(self, bytestream: bytes) -> None:
        """Send all of it; a connection that breaks or does not take it is closed."""
        try:
            self.transmit(bytestream)
        except OSError:
            self.event_queue.put("Evt17")  # PS3.8 9.2.1: transport connection closed

    def transmit(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises:
            OSError: The connection broke, or the peer takes nothing for too long.
        """
        connection = self.socket
        if connection is None:
            raise ConnectionError("the connection is closed")
        view = memoryview(data)
        while view:
            view = view[self._send_some(connection, view) :]

    def _send_some(self, connection: socket.socket, view: memoryview) -> int:
        try:
            if isinstance(connection, ssl.SSLSocket):
                return connection.send(view)
            return connection.send(view, socket.MSG_DONTWAIT)
        except _WANTS as want:
            self._wait_to_send(connection, want)
            return 0

    def _wait_to_send(self, connection: socket.socket, want: Exception) -> None:
        event = select.POLLIN if isinstance(want, ssl.SSLWantReadError) else select.POLLOUT
        poll = select.poll()
        poll.register(connection, event)
        if not poll.poll(self._stalled_timeout_s * 1000):
            raise TimeoutError("the peer does not read its answers")


class Wire:
    """Bytes of a connection that have arrived and were not used yet: ``view[start:end]``."""

    def __init__(self, connection: socket.socket, *, stalled_timeout_s: float) -> None:
        self._connection = connection
        self._is_tls = isinstance(connection, ssl.SSLSocket)
        self._stalled_timeout_s = stalled_timeout_s
        self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._wake_descriptor, select.POLLIN)
        self._poll.register(connection, select.POLLIN)
        self._connection_descriptor = connection.fileno()
        self._wait_s = min(_WAIT_S, stalled_timeout_s)
        if self._is_tls:
            connection.settimeout(0)
        else:
            # Reads inside a message wait in the kernel, in one call: three for each piece cost more
            # than the copy. ``cut`` ends them, and the kernel does after a while.
            connection.settimeout(None)
            seconds = int(self._wait_s)
            microseconds = int((self._wait_s - seconds) * 1_000_000) or (0 if seconds else 1)
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(seconds, microseconds)
            )
        self._deadline_s = 0.0
        self._window_bytes = 0
        self.view = memoryview(bytearray(BUFFER_BYTES))
        self.start = self.end = _HEADROOM_BYTES

    def wake(self) -> None:
        """End the wait of the thread that reads; from any thread."""
        with self._wake_lock, contextlib.suppress(OSError):
            if self._wake_descriptor >= 0:
                os.eventfd_write(self._wake_descriptor, 1)

    def close(self) -> None:
        """Free the wake-up channel and the buffer; the connection belongs to its socket.

        pynetdicom's association and its threads refer to each other, so that all of them wait for
        the garbage collector: what is large must not wait with them.
        """
        self.view = memoryview(b"")
        self.start = self.end = 0
        with self._wake_lock:
            descriptor, self._wake_descriptor = self._wake_descriptor, -1
        os.close(descriptor)

    def forget_connection(self) -> None:
        """Stop watching a connection that is closed; its number may soon be another's."""
        with contextlib.suppress(KeyError):
            self._poll.unregister(self._connection_descriptor)

    @property
    def available(self) -> int:
        """Bytes that have arrived and were not used yet."""
        return self.end - self.start

    def begin_message(self) -> None:
        """From here on the peer has to keep its pace, until ``end_message``."""
        self._deadline_s = time.monotonic() + self._stalled_timeout_s
        self._window_bytes = 0

    def end_message(self) -> None:
        """The peer may be silent for as long as it likes."""
        self._deadline_s = 0.0

    def put_back(self, header: bytes) -> None:
        """Put bytes before those that are next; at least as many must have been used."""
        self.start -= len(header)
        self.view[self.start : self.start + len(header)] = header

    def require(self, count: int) -> None:
        """Wait inside a message until ``count`` bytes are there; see ``receive_into``."""
        while self.end - self.start < count:
            self._make_room(count)
            self.end += self.receive_into(self.view[self.end :])

    def poll_first(self, seconds: float) -> bool:
        """Wait outside of messages until something is there.

        Returns:
            False if ``wake`` ended the wait, or the time passed.

        Raises:
            WireClosedError: The connection is closed.
        """
        if self.end > self.start:
            return True
        self.start = self.end = _HEADROOM_BYTES
        target = self.view[self.end : self.end + _FIRST_BYTES]
        count = self._try_receive(target)
        if count < 0:
            self.wait(seconds)
            count = self._try_receive(target)
        self.end += max(count, 0)
        return count > 0

    def receive_into(self, target: memoryview) -> int:
        """Receive at least one byte inside a message.

        Raises:
            WireClosedError: The connection is closed.
            WireStalledError: The peer is too slow.
        """
        while True:
            count = self._await(target, 0)
            if count > 0:
                return count

    def receive_past(self, target: memoryview, *, ahead: int = 0) -> int:
        """Fill ``target`` inside a message, past the wire's own buffer, which must be empty.

        Less is received only from a slow peer, or by TLS. It raises what ``receive_into`` does.

        Args:
            target: Where the bytes go.
            ahead: What a peer that keeps to the message sends next, in bytes: where one call can
                have both, it is in the wire's buffer afterwards. A peer that aborts with less
                waits for a second at most.

        Returns:
            The number of bytes in ``target``.
        """
        self.start = self.end = _HEADROOM_BYTES
        room = None if self._is_tls or not ahead else self.view[self.end : self.end + ahead]
        while True:
            count = self._await(target, socket.MSG_WAITALL, room)
            if count > 0:
                self.end += max(0, count - len(target))
                return min(count, len(target))

    def _await(self, target: memoryview, flags: int, room: memoryview | None = None) -> int:
        """Receive inside a message, into ``room`` too if it is given; -1: nothing for a while."""
        if self._is_tls:
            count = self._try_receive(target)
            if count < 0:
                self.wait(self._wait_s)
        else:
            count = self._receive(target, flags, room)
        self._window_bytes += max(count, 0)
        self._check_pace()
        return count

    def _check_pace(self) -> None:
        now_s = time.monotonic()
        if now_s < self._deadline_s:
            return
        if self._window_bytes < MIN_BYTES_PER_S * self._stalled_timeout_s:
            raise WireStalledError("the peer stopped in the middle of a message")
        self.begin_message()

    def _make_room(self, count: int) -> None:
        if self.start == self.end:
            self.start = self.end = _HEADROOM_BYTES
        elif BUFFER_BYTES - self.start < count:
            held = bytes(self.view[self.start : self.end])
            self.start, self.end = _HEADROOM_BYTES, _HEADROOM_BYTES + len(held)
            self.view[self.start : self.end] = held

    def _try_receive(self, target: memoryview) -> int:
        """Receive what is there: -1 for nothing yet."""
        return self._receive(target, 0 if self._is_tls else socket.MSG_DONTWAIT)

    def _receive(self, target: memoryview, flags: int, room: memoryview | None = None) -> int:
        try:
            if room is None:
                count = self._connection.recv_into(target, 0, flags)
            else:
                count = self._connection.recvmsg_into((target, room), 0, flags)[0]
        except _WANTS:
            return -1
        except OSError as error:
            raise WireClosedError("the connection broke") from error
        if count == 0:
            raise WireClosedError("the peer closed the connection")
        return count

    def wait(self, seconds: float) -> None:
        """Wait for bytes or for ``wake``."""
        if self._is_tls and cast("ssl.SSLSocket", self._connection).pending():
            return
        for descriptor, _ in self._poll.poll(seconds * 1000):
            if descriptor == self._wake_descriptor:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(descriptor)
