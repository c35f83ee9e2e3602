"""Sockets and TLS for the publisher, without the MQTT client."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from telemetry.errors import BrokerUnreachableError
from telemetry.settings import TlsSettings


class ClientContext(ssl.SSLContext):
    """Checks the broker's certificate and name, always; remembers the socket that it wrapped.

    paho forgets a socket whose handshake fails, and a broker with a wrong certificate would cost
    one open file a try.
    """

    _wrapped: ssl.SSLSocket | None = None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """See ``ssl.SSLContext.wrap_socket``: the signature is the library's."""
        self._wrapped = super().wrap_socket(*args, **kwargs)
        return self._wrapped

    def close(self) -> None:
        """Close the socket; again is no harm."""
        if self._wrapped is not None:
            self._wrapped.close()


def tls_context(tls: TlsSettings) -> ClientContext:
    """Build the context of one connection.

    Raises:
        OSError: A file is missing, unreadable, or no certificate.
    """
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cafile=tls.ca_file)
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


def wait_for(sock: Any, wake: socket.socket | None, timeout_s: float, *, want_write: bool) -> int:
    """Return the poll events of ``sock``, after the first of: an event, a wake-up, the timeout."""
    # TLS may hold decrypted bytes that poll() cannot see.
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return select.POLLIN
    poller = select.poll()
    poller.register(sock, select.POLLIN | (select.POLLOUT if want_write else 0))
    if wake is not None:
        poller.register(wake, select.POLLIN)
    events = dict(poller.poll(timeout_s * 1_000))
    return events.get(sock.fileno(), 0)


_FAILURE_CODES: tuple[tuple[type[Exception], str], ...] = (
    (ssl.SSLCertVerificationError, "tls_certificate"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "name_unknown"),
    (ConnectionRefusedError, "refused"),
    (TimeoutError, "timeout"),
    (FileNotFoundError, "tls_file_missing"),
    (PermissionError, "tls_file_unreadable"),
    (OSError, "network"),
)
"""The first that fits; codes and not texts, which may name hosts and files."""


@contextmanager
def broker_failures() -> Iterator[None]:
    """Turn what the network raises into ``BrokerUnreachableError``."""
    try:
        yield
    except OSError as error:
        reason = next(code for cls, code in _FAILURE_CODES if isinstance(error, cls))
        raise BrokerUnreachableError(reason) from error
