"""A node without threads: one stream of bytes goes through one association, step by step.

For fuzzing: thousands of streams a second, each with the same steps for the same bytes. What the
two threads of an association do is done here in turns; all code that looks at the peer's bytes is
the node's own, and so is the connection, on the loopback.
"""

from __future__ import annotations

import os
import socket
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pynetdicom.presentation import build_context
from pynetdicom.transport import AddressInformation

from dicom_node.acceptor import NodeAssociation
from dicom_node.admission import PeerRule
from dicom_node.fast_path import FastDul
from dicom_node.quiet import silence_dicom_libraries
from dicom_node.reception import Caller
from dicom_node.scp import NodeSettings, StorageNode
from dicom_node.server import NodeServer
from simulators.memory_inbox import MemoryInbox
from simulators.rogue_modality import CT, EXPLICIT, VERIFICATION

_ESTABLISHED = "Sta6"
# More steps than bytes cannot be needed: each takes a PDU, sends one, or looks at a timer.
_SPARE_STEPS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one stream."""

    published: list[bytes]
    """The data sets in the spool."""
    answered: bytes
    """What the node sent."""
    has_ended: bool
    """The node has closed the connection, as it must after the end of the stream."""


@dataclass(slots=True, kw_only=True)
class HandDrivenNode:
    """Receives on one of the two ways."""

    folder: Path
    fast_path: bool
    inbox: MemoryInbox = field(init=False, default_factory=MemoryInbox)
    _node: StorageNode = field(init=False)
    _server: NodeServer = field(init=False)
    _incoming: str = field(init=False)
    _shards: list[str] = field(init=False)

    def __post_init__(self) -> None:
        silence_dicom_libraries()
        settings = NodeSettings(
            ae_title="NODE",
            bind_address="127.0.0.1",
            port=0,
            admit_unknown_peers=True,
            min_free_bytes=0,
            fast_path=self.fast_path,
        )
        self._incoming = str(self.folder / "incoming")
        self._shards = [str(self.folder / f"{number:02x}") for number in range(256)]
        self._node = StorageNode(settings, spool_folder=self.folder, inbox=self.inbox)
        self._server = NodeServer(
            self._node._make_ae(), ("127.0.0.1", 0), self._node._make_policy()
        )

    def close(self) -> None:
        """Free the port."""
        self._server.server_close()

    def receive(self, stream: bytes) -> Outcome:
        """Let an association receive ``stream`` and then the end of the connection.

        Contexts: 1 is for CT images in explicit VR little endian, 3 for verification.

        Raises:
            Exception: What the node's own code raises and only its outermost boundary catches.
        """
        listener = self._server.socket
        assert listener is not None
        with socket.create_connection(listener.getsockname()) as peer:
            connection, _ = listener.accept()
            peer.settimeout(10)
            association = self._associate(connection)
            peer.sendall(stream)
            peer.shutdown(socket.SHUT_WR)
            try:
                has_ended = self._drive(association, len(stream))
            finally:
                association._end_upper_layer()
                if isinstance(association.dul, FastDul):
                    association.dul._wire.close()  # as its thread does last
                session = association._session
                assert session is not None
                session.close(released=False)
            answered = _all_of(peer)
        return Outcome(published=self.take(), answered=answered, has_ended=has_ended)

    def _associate(self, connection: socket.socket) -> NodeAssociation:
        """An association as it stands after its negotiation."""
        association = NodeAssociation(self._server.ae, self._server, connection)
        address = AddressInformation(*connection.getpeername())
        association.requestor.address_info = association.acceptor.address_info = address
        contexts = [build_context(CT, EXPLICIT), build_context(VERIFICATION, EXPLICIT)]
        for number, context in zip((1, 3), contexts, strict=True):
            context.context_id = number
            context.result = 0
            context._as_scp = True
            context._as_scu = False
        association._accepted_cx = {each.context_id: each for each in contexts if each.context_id}
        association.caller = Caller(
            ae_title="ROGUE", address="127.0.0.1", rule=PeerRule(ae_title="ROGUE")
        )
        association._session = self._node.open_session("0123456789abcdef", association.caller)
        association.is_established = True
        association.dul.event_queue.queue.clear()  # the one that says that there is a connection
        association.dul.state_machine.current_state = _ESTABLISHED
        return association

    def _drive(self, association: NodeAssociation, stream_bytes: int) -> bool:
        """Do what the two threads do, in turns, until nothing is left to do."""
        dul = association.dul
        for _ in range(stream_bytes + _SPARE_STEPS):
            try:
                _step(dul)
                self._serve(association)
            except Exception as error:
                if _is_ours(error):
                    raise
                # pynetdicom met what its tables do not have: the node gives up in order.
                return True
            if association._kill or dul._kill_thread:
                return True
            is_closed = dul.socket is None or dul.socket.socket is None
            if is_closed and dul.event_queue.empty() and not dul.to_provider_queue.queue:
                return True
        return False

    def _serve(self, association: NodeAssociation) -> None:
        """What the association's thread does in one round."""
        context_id, message = association.dimse.get_msg(block=False)
        if message is not None and context_id is not None:
            association._serve_request(message, context_id)
        acse = association.acse
        if association.is_established and acse.is_release_requested():
            acse.send_release(is_response=True)
            association.is_established = False

    def take(self) -> list[bytes]:
        """The stored data sets, which go; row and file must stand for each other."""
        assert not _names(self._incoming), "something unfinished is left"
        # Spool.iter_files says the same, in ten times the time.
        paths = [f"{shard[-2:]}/{name}" for shard in self._shards for name in _names(shard)]
        assert sorted(paths) == sorted(row.path for row in self.inbox.rows.values())
        published = []
        for path in paths:
            whole = self._node.spool.absolute(path).read_bytes()
            published.append(whole[_data_set_offset(whole) :])
            self._node.spool.remove(path)
        self.inbox.rows.clear()
        return published


def _names(folder: str) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208  256 folders for each stream: a Path costs more


def _step(dul: Any) -> None:
    """One round of the upper layer's reactor."""
    if isinstance(dul, FastDul):
        dul._find_event()
        dul._act()
        return
    # As ``DULServiceProvider.run_reactor``, without its sleep.
    if not dul._process_recv_primitive():
        dul._is_transport_event()
    if not dul.event_queue.empty():
        dul.state_machine.do_action(dul.event_queue.get(block=False))


def _is_ours(error: Exception) -> bool:
    """Whether the node's own code raised it, and not the library below."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"]).startswith("dicom_node")


def _data_set_offset(whole: bytes) -> int:
    """By the group length, which the node writes (PS3.10 7.1)."""
    return 144 + int.from_bytes(whole[140:144], "little")


def _all_of(peer: socket.socket) -> bytes:
    got = b""
    try:
        while piece := peer.recv(65_536):
            got += piece
    except ConnectionError:
        return got
    return got
