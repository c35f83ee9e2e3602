"""What both sides of the network need of pynetdicom's socket and lack there."""

from __future__ import annotations

import contextlib
import socket
import ssl

from pynetdicom.transport import AssociationSocket


class ClosingSocket(AssociationSocket):
    """A socket that is always closed.

    Stock pynetdicom shuts down and closes in one attempt; where the peer has gone, shutting down
    fails, and the descriptor stays open until it happens to be collected.
    """

    def _shutdown_socket(self) -> None:
        connection: socket.socket | None = self.socket
        if connection is None:
            return
        if isinstance(connection, ssl.SSLSocket):
            _say_goodbye(connection)
        cut(connection)
        connection.close()

    def interrupt(self) -> None:
        """End the connection from another thread; the thread that reads it closes it."""
        connection: socket.socket | None = self.socket
        if connection is not None:
            cut(connection)


def cut(connection: socket.socket) -> None:
    """End a connection without a word, from any thread; the thread that reads it closes it.

    Past TLS's own shutdown: that would turn the connection into one in clear text under the thread
    that reads it, which would take what is encrypted for the peer's words.
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _say_goodbye(connection: ssl.SSLSocket) -> None:
    """Send close_notify (RFC 8446 6.1), without waiting for the peer's."""
    with contextlib.suppress(OSError, ValueError):
        connection.settimeout(0)
        connection.unwrap()
