"""Ports that several processes can ask for at the same time without taking each other's."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """Return a TCP port of the loopback interface for a server that starts within a minute.

    Its listener has just closed a connection. In TIME-WAIT (RFC 9293 3.6.1) the kernel offers the
    port to nobody who asks for any, and leaves it to a server that asks for it by its number.
    """
    with socket.create_server((LOOPBACK, 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as caller:
            listener.accept()[0].close()
            caller.recv(1)  # returns when the listener's side has closed, as the first of the two
    return int(address[1])
