"""The storage node: C-ECHO and C-STORE for every storage class.

``with StorageNode(...)`` is the node's lifetime: it listens inside the block and has no thread
left after it. What "stored" means is in ``reception``; who may call is in ``admission``.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import structlog
from pynetdicom import AE

from dicom_node.acceptor import AcceptorPolicy, NodeAssociation
from dicom_node.admission import (
    AdmissionPolicy,
    Admitted,
    Call,
    PeerRule,
    Reason,
    Refused,
    Rejection,
    decide,
)
from dicom_node.contexts import supported_contexts
from dicom_node.errors import HandshakeError, HandshakeFault, NodeStartError, TlsFileError
from dicom_node.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.inbox import Inbox
from dicom_node.normalized import Service
from dicom_node.quiet import silence_dicom_libraries
from dicom_node.reception import Caller, StoreSession
from dicom_node.server import Handshake, NodeServer
from dicom_node.spool import Spool
from dicom_node.tls import ServerCertificates, ServerTls

_log = structlog.get_logger()
_POLL_S = 0.1
# Probes of the port end so: nothing tells them from a scanner that gave up.
_SAYS_NOTHING = frozenset({HandshakeFault.SILENT, HandshakeFault.CLOSED})
# After its connection is cut, a thread has nothing left to wait for.
_CUT_GRACE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPort:
    """Where the node speaks TLS."""

    certificates: ServerCertificates
    port: int = 2762
    """Registered for DICOM over TLS (PS3.15 B.12); 0 takes any free port."""
    is_only_port: bool = False
    """There is none for clear text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """All that can be set about the node."""

    ae_title: str
    bind_address: str = "0.0.0.0"  # noqa: S104  a storage node serves the network; peers are listed
    port: int = 11112
    """For clear text; 0 takes any free port, see ``StorageNode.port``."""
    tls: TlsPort | None = None
    """Opens a second port; clear text is then for peers whose rule allows it."""
    require_called_ae_title: bool = True
    peers: tuple[PeerRule, ...] = ()
    admit_unknown_peers: bool = False
    max_associations: int = 32
    max_pdu_bytes: int = 128 * 1024
    max_instance_bytes: int = 8 << 30
    min_free_bytes: int = 1 << 30
    """Reserve of the spool's file system, for the index, logs and updates."""
    journal_bytes: int = 0
    """Size of the journal in front of the files; 0: each file is synced by itself."""
    association_timeout_s: float = 30.0
    """From connection to A-ASSOCIATE-RQ (PS3.8 ARTIM)."""
    stalled_timeout_s: float = 60.0
    """For a peer that stops in the middle of a PDU."""
    idle_timeout_s: float = 3600.0
    """Scanners keep associations open between patients."""
    stop_grace_s: float = 5.0
    """For stores in progress when the node stops."""
    private_sop_classes: tuple[str, ...] = ()
    max_pending_per_address: int = 32
    """Connections of one address that have not associated yet; one more is closed at once."""
    fast_path: bool = True
    """Data sets go straight from the socket to the disk; False: through pynetdicom's own layers."""

    @property
    def admission(self) -> AdmissionPolicy:
        """Who may call."""
        return AdmissionPolicy(
            ae_title=self.ae_title,
            require_called_ae_title=self.require_called_ae_title,
            peers=self.peers,
            admit_unknown_peers=self.admit_unknown_peers,
            requires_tls=self.tls is not None,
        )


class StorageNode:
    """Accepts associations and stores what they bring."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        spool_folder: Path,
        inbox: Inbox,
        on_refused: Callable[[Call, Reason], None] | None = None,
        services: tuple[Service, ...] = (),
    ) -> None:
        """Nothing is opened yet.

        ``on_refused`` hears of each call that came to nothing, in the call's own thread; where
        that was for TLS, the call has no AE titles: nobody got to say them.
        ``services`` are the handlers of what is no C-STORE or C-ECHO.
        """
        self._services = services
        self._settings = settings
        self._inbox = inbox
        self._on_refused = on_refused
        self.spool = Spool(
            spool_folder,
            min_free_bytes=settings.min_free_bytes,
            journal_bytes=settings.journal_bytes,
        )
        self._admission = settings.admission
        self._clear: _Listener | None = None
        self._encrypted: _Listener | None = None

    def __enter__(self) -> StorageNode:
        """Start to listen.

        Raises:
            NodeStartError: An address or port cannot be had, or the certificates cannot be used.
        """
        silence_dicom_libraries()
        try:
            self._open_ports(self._make_ae(), self._make_policy())
        except NodeStartError:
            self.__exit__(None, None, None)
            raise
        self.spool.__enter__()
        for listener in self._listeners:
            listener.thread.start()
            _log.info("node.listening", port=listener.port, tls=listener is self._encrypted)
        return self

    def _open_ports(self, ae: AE, policy: AcceptorPolicy) -> None:
        """One application entity and one policy for both: they share every limit."""
        settings, tls = self._settings, self._settings.tls
        if tls is not None:
            shake_hands = partial(self._shake_hands, _read_certificates(tls))
            self._encrypted = _listen(settings.bind_address, tls.port, ae, policy, shake_hands)
        if tls is None or not tls.is_only_port:
            self._clear = _listen(settings.bind_address, settings.port, ae, policy)

    @property
    def port(self) -> int:
        """The port for clear text, while the node listens on one.

        Raises:
            RuntimeError: It does not.
        """
        return _port_of(self._clear)

    @property
    def tls_port(self) -> int:
        """The port for TLS, while the node listens on one.

        Raises:
            RuntimeError: It does not.
        """
        return _port_of(self._encrypted)

    @property
    def associations(self) -> list[NodeAssociation]:
        """Those whose threads are alive, and connections that may become one."""
        return [each for one in self._listeners for each in one.server.node_associations]

    @property
    def _listeners(self) -> list[_Listener]:
        return [each for each in (self._clear, self._encrypted) if each is not None]

    def _make_ae(self) -> AE:
        settings = self._settings
        ae = AE(settings.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_associations = settings.max_associations
        ae.acse_timeout = settings.association_timeout_s
        ae.dimse_timeout = settings.stalled_timeout_s
        ae.network_timeout = settings.idle_timeout_s
        return ae

    def _make_policy(self) -> AcceptorPolicy:
        settings = self._settings
        return AcceptorPolicy(
            admit=self._admit,
            open_session=self.open_session,
            contexts=supported_contexts(settings.private_sop_classes),
            max_pdu_bytes=settings.max_pdu_bytes,
            stalled_timeout_s=settings.stalled_timeout_s,
            fast_path=settings.fast_path,
            services=self._services,
            max_pending_per_address=settings.max_pending_per_address,
            max_pending=4 * settings.max_associations,
            handshake_timeout_s=settings.association_timeout_s,
        )

    def _admit(self, call: Call) -> Admitted | Rejection:
        decision = decide(self._admission, call)
        if not isinstance(decision, Refused):
            return decision
        self._report(call, decision.reason)
        return decision.rejection

    def _report(self, call: Call, reason: Reason) -> None:
        """Tell who asked to hear of refused callers; what goes wrong there is not the caller's."""
        if self._on_refused is None:
            return
        try:
            self._on_refused(call, reason)
        except Exception as error:  # noqa: BLE001  boundary: the text may name the caller
            _log.error("node.refusal_not_noted", error=type(error).__name__)

    def _shake_hands(
        self, tls: ServerTls, connection: socket.socket, timeout_s: float
    ) -> ssl.SSLSocket:
        address = connection.getpeername()[0]
        try:
            return tls.accept(connection, timeout_s)
        except HandshakeError as error:
            _log.warning("node.tls_refused", reason=error.fault.name.lower())
            if error.fault not in _SAYS_NOTHING:
                self._report(
                    Call(calling_ae_title="", called_ae_title="", address=address), error.fault
                )
            raise

    def open_session(self, association_id: str, caller: Caller) -> StoreSession:
        """Begin the stores of one association, or of one request at another door."""
        return StoreSession(
            association_id=association_id,
            caller=caller,
            spool=self.spool,
            inbox=self._inbox,
            max_instance_bytes=self._settings.max_instance_bytes,
        )

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening, end all associations and wait for their threads.

        An instance whose store has begun to be recorded is finished; its sender may not hear of
        it, and will send it again.
        """
        listeners = self._listeners
        for listener in listeners:
            listener.stop()
        associations = self.associations
        self._clear = self._encrypted = None
        self._end(associations)
        self.spool.__exit__(None, None, None)
        if listeners:
            _log.info("node.stopped")

    def _end(self, associations: Sequence[NodeAssociation]) -> None:
        for association in associations:
            association.end()
        _join_all(associations, self._settings.stop_grace_s)
        left = [each for each in associations if each.is_alive()]
        for association in left:
            association.cut()
        _join_all(left, _CUT_GRACE_S)


def _join_all(threads: Sequence[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class _Listener:
    """One port and the thread that accepts its connections."""

    def __init__(self, server: NodeServer) -> None:
        self.server = server
        self.port: int = server.server_address[1]
        self.thread = threading.Thread(
            target=server.serve_forever, args=(_POLL_S,), name=f"node-listener-{self.port}"
        )

    def stop(self) -> None:
        """Free the port; associations go on."""
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
        else:
            self.server.server_close()


def _listen(
    address: str, port: int, ae: AE, policy: AcceptorPolicy, handshake: Handshake | None = None
) -> _Listener:
    try:
        return _Listener(NodeServer(ae, (address, port), policy, handshake))
    except OSError as error:
        raise NodeStartError(
            f"cannot listen on {address} port {port}: {error.strerror}; stop the program that has "
            "it, or set another port"
        ) from error


def _read_certificates(tls: TlsPort) -> ServerTls:
    try:
        return ServerTls(tls.certificates)
    except TlsFileError as error:
        raise NodeStartError(f"the node has no certificate for TLS: {error}") from error


def _port_of(listener: _Listener | None) -> int:
    if listener is None:
        raise RuntimeError("the node does not listen on such a port")
    return listener.port
