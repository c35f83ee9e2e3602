"""What both sides of the network need of pynetdicom's socket and lack there."""

from __future__ import annotations

import contextlib
import socket

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
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def interrupt(self) -> None:
        """End the connection from another thread; the thread that reads it closes it."""
        connection: socket.socket | None = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
