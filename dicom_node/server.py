"""Listens: each connection gets a thread, a TLS handshake where asked for, and an association.

No address may hold many connections that say nothing, nor all of them together.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from socketserver import BaseServer
from typing import Any, cast

import structlog
from pynetdicom import AE
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.acceptor import AcceptorPolicy, NodeAssociation

_log = structlog.get_logger()


class _NodeRequestHandler(RequestHandler):
    """Makes the association for one connection, in a thread of its own."""

    def handle(self) -> None:
        """Shake hands where the port asks for it, then start the association."""
        server = cast("NodeServer", self.server)
        request = cast("socket.socket", self.request)
        try:
            connection = server.secure(request)
            association = self._make_association(server, connection)
            server.adopt(request, association)
            association.start()
        finally:
            server.no_longer_pending(request)

    def _make_association(self, server: NodeServer, connection: socket.socket) -> NodeAssociation:
        association = NodeAssociation(self.ae, server, connection)
        acceptor = association.acceptor
        acceptor.maximum_length = server.policy.max_pdu_bytes
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # Negotiation only reads them, so all associations share one list.
        acceptor.supported_contexts = server.policy.contexts
        association.requestor.address_info = self.remote
        return association


Handshake = Callable[[socket.socket, float], ssl.SSLSocket]
"""``(connection, timeout in seconds)``; raises OSError."""


class NodeServer(ThreadedAssociationServer):
    """Listens; each connection gets a ``NodeAssociation``."""

    # The kernel's backlog: many scanners may connect in the same moment after an outage.
    request_queue_size = 64

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        policy: AcceptorPolicy,
        handshake: Handshake | None = None,
    ) -> None:
        """``handshake`` makes every connection a TLS one, in the connection's own thread."""
        self.policy = policy
        self.handshake = handshake
        self._lock = threading.Lock()
        self._associations: set[NodeAssociation] = set()
        self._pending: dict[object, str] = {}
        self._handshakes: set[socket.socket] = set()
        super().__init__(
            ae, address, ae.ae_title, policy.contexts, request_handler=_NodeRequestHandler
        )

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close a connection at once when its address holds too many that say nothing."""
        del request
        with self._lock:
            pending = list(self._pending.values())
        address = client_address[0]
        is_welcome = (
            len(pending) < self.policy.max_pending
            and pending.count(address) < self.policy.max_pending_per_address
        )
        if not is_welcome:
            _log.warning("node.too_many_pending_connections", pending=len(pending))
        return is_welcome

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread; from here until it associates it is pending."""
        with self._lock:
            self._pending[request] = client_address[0]
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A handshake failed, or the connection broke before it was an association."""
        del request, client_address
        _log.warning("node.connection_failed", error=type(sys.exc_info()[1]).__name__)

    def secure(self, connection: socket.socket) -> socket.socket:
        """Shake hands, if that is asked for; ``shutdown`` ends it from outside.

        Raises:
            OSError: The handshake failed, or took too long.
        """
        if self.handshake is None:
            return connection
        # The handshake takes the descriptor over; a second one lets us end it.
        with connection.dup() as lever, self._interruptible(lever):
            return self.handshake(connection, self.policy.handshake_timeout_s)

    @contextlib.contextmanager
    def _interruptible(self, lever: socket.socket) -> Iterator[None]:
        with self._lock:
            self._handshakes.add(lever)
        try:
            yield
        finally:
            with self._lock:
                self._handshakes.discard(lever)

    def adopt(self, request: object, association: NodeAssociation) -> None:
        """From now on the association stands for its connection."""
        with self._lock:
            self._associations.add(association)
            self._pending[association] = self._pending.pop(request, "")

    def no_longer_pending(self, who: object) -> None:
        """A connection has associated, or has ended; a second call does nothing."""
        with self._lock:
            self._pending.pop(who, None)

    def forget(self, association: NodeAssociation) -> None:
        """Drop an association whose thread ends."""
        with self._lock:
            self._associations.discard(association)
            self._pending.pop(association, None)

    def shutdown(self) -> None:
        """Stop listening and free the port; associations go on."""
        BaseServer.shutdown(self)
        with self._lock:
            levers = list(self._handshakes)
        for lever in levers:
            with contextlib.suppress(OSError):
                lever.shutdown(socket.SHUT_RDWR)
        self.server_close()

    @property
    def node_associations(self) -> list[NodeAssociation]:
        """The associations whose threads run."""
        with self._lock:
            return list(self._associations)
