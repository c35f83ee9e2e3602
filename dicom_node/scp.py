"""The storage node: C-ECHO and C-STORE for every storage class.

``with StorageNode(...)`` is the node's lifetime: it listens inside the block and has no thread
left after it. What "stored" means is in ``reception``; who may call is in ``admission``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import structlog
from pynetdicom import AE

from dicom_node.acceptor import AcceptorPolicy, NodeServer
from dicom_node.admission import AdmissionPolicy, Admitted, PeerRule, Rejection, decide
from dicom_node.contexts import supported_contexts
from dicom_node.errors import NodeStartError
from dicom_node.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.inbox import Inbox
from dicom_node.quiet import silence_dicom_libraries
from dicom_node.reception import Caller, StoreSession
from dicom_node.spool import Spool

_log = structlog.get_logger()
_POLL_S = 0.1
# After its connection is cut, a thread has nothing left to wait for.
_CUT_GRACE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """All that can be set about the node."""

    ae_title: str
    bind_address: str = "0.0.0.0"  # noqa: S104  a storage node serves the network; peers are listed
    port: int = 11112
    """0 takes any free port; see ``StorageNode.port``."""
    require_called_ae_title: bool = True
    peers: tuple[PeerRule, ...] = ()
    admit_unknown_peers: bool = False
    max_associations: int = 32
    max_pdu_bytes: int = 128 * 1024
    max_instance_bytes: int = 8 << 30
    min_free_bytes: int = 1 << 30
    """Reserve of the spool's file system, for the index, logs and updates."""
    association_timeout_s: float = 30.0
    """From connection to A-ASSOCIATE-RQ (PS3.8 ARTIM)."""
    stalled_timeout_s: float = 60.0
    """For a peer that stops in the middle of a PDU."""
    idle_timeout_s: float = 3600.0
    """Scanners keep associations open between patients."""
    stop_grace_s: float = 5.0
    """For stores in progress when the node stops."""
    private_sop_classes: tuple[str, ...] = ()


class StorageNode:
    """Accepts associations and stores what they bring."""

    def __init__(self, settings: NodeSettings, *, spool_folder: Path, inbox: Inbox) -> None:
        self._settings = settings
        self._inbox = inbox
        self.spool = Spool(spool_folder, min_free_bytes=settings.min_free_bytes)
        self._admission = AdmissionPolicy(
            ae_title=settings.ae_title,
            require_called_ae_title=settings.require_called_ae_title,
            peers=settings.peers,
            admit_unknown_peers=settings.admit_unknown_peers,
        )
        self._server: NodeServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StorageNode:
        """Start to listen.

        Raises:
            NodeStartError: The address or port cannot be had.
        """
        silence_dicom_libraries()
        settings = self._settings
        try:
            self._server = NodeServer(
                self._make_ae(), (settings.bind_address, settings.port), self._make_policy()
            )
        except OSError as error:
            raise NodeStartError(
                f"cannot listen on {settings.bind_address} port {settings.port}: "
                f"{error.strerror}; stop the program that has it, or set another port"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="node-listener"
        )
        self._thread.start()
        _log.info("node.listening", port=self.port)
        return self

    @property
    def port(self) -> int:
        """The port that the node listens on, while it does."""
        if self._server is None:
            raise RuntimeError("the node is not running")
        port: int = self._server.server_address[1]
        return port

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
            open_session=self._open_session,
            contexts=supported_contexts(settings.private_sop_classes),
            max_pdu_bytes=settings.max_pdu_bytes,
            stalled_timeout_s=settings.stalled_timeout_s,
        )

    def _admit(self, calling: str, called: str, address: str) -> Admitted | Rejection:
        return decide(
            self._admission, calling_ae_title=calling, called_ae_title=called, address=address
        )

    def _open_session(self, association_id: str, caller: Caller) -> StoreSession:
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
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        server.shutdown()
        thread.join()
        self._end_associations(server)
        _log.info("node.stopped")

    def _end_associations(self, server: NodeServer) -> None:
        associations = server.node_associations
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
