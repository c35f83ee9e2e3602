"""The second door: DICOMweb STOW-RS (PS3.18 10.5) for senders that have no DIMSE.

It opens onto the same room: every instance goes through a ``StoreSession``, as one that came by
C-STORE does, and "stored" means the same. ``with StowDoor(...)`` is the door's lifetime; it has no
thread left after it. A request is to the index what an association is.

Whatever a peer can make us hold has a bound: connections, connections of one address that have
shown no token yet, requests that store, bytes of a head, parts, bytes of a request.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import TracebackType

import structlog

from dicom_node.contexts import STORAGE_CLASSES
from dicom_node.errors import NodeStartError
from dicom_node.reception import Caller, StoreSession
from dicom_node.stow_exchange import Exchange, ExchangeTerms
from dicom_node.stow_request import StowClient, StowPolicy
from dicom_node.tls import ServerTls

_log = structlog.get_logger()
# When the system has no descriptor left for a connection, there will be one in a while.
_ACCEPT_PAUSE_S = 0.2
_BACKLOG = 64
# For answers, and for connections that have not asked for anything yet.
_SPARE_CONNECTIONS = 16
# After its connection is cut, a thread has nothing left to wait for.
_CUT_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StowSettings:
    """All that can be set about the door."""

    bind_address: str = "127.0.0.1"
    port: int = 11180
    """0 takes any free port; see ``StowDoor.port``."""
    path_prefix: str = "/dicom-web"
    clients: tuple[StowClient, ...] = ()
    private_sop_classes: Collection[str] = ()
    max_requests: int = 4
    """That store at the same time; one more is answered with 503."""
    max_parts: int = 5_000
    """Instances in one request."""
    max_request_bytes: int = 64 << 30
    max_pending_per_address: int = 8
    """Connections of one address that have shown no token yet; one more is closed at once."""
    head_timeout_s: float = 10.0
    """From connection to the end of the head, and for a TLS handshake."""
    idle_timeout_s: float = 30.0
    """For a sender that stops in the middle of a body."""
    min_bytes_per_s: int = 1_024
    """A sender that is slower, on the average of ``rate_window_s``, is cut off."""
    rate_window_s: float = 20.0
    stop_grace_s: float = 5.0
    """For requests in progress when the node stops."""


class StowDoor:
    """Listens, and serves each connection in a thread of its own."""

    def __init__(
        self,
        settings: StowSettings,
        *,
        open_session: Callable[[str, Caller], StoreSession],
        check_room: Callable[[], None],
        tls: ServerTls | None = None,
    ) -> None:
        """Get ready.

        Args:
            settings: The door's settings.
            open_session: ``(association id, caller)`` to a session over spool and index.
            check_room: Raises a ``DeviceError`` while nothing can be stored.
            tls: Takes TLS connections; None: clear text.
        """
        self._settings = settings
        self._terms = ExchangeTerms(
            policy=StowPolicy(
                clients=settings.clients,
                path_prefix=settings.path_prefix.rstrip("/"),
                max_request_bytes=settings.max_request_bytes,
            ),
            tls=tls,
            open_session=open_session,
            check_room=check_room,
            sop_classes=frozenset((*STORAGE_CLASSES, *settings.private_sop_classes)),
            max_parts=settings.max_parts,
            head_timeout_s=settings.head_timeout_s,
            idle_timeout_s=settings.idle_timeout_s,
            min_bytes_per_s=settings.min_bytes_per_s,
            rate_window_s=settings.rate_window_s,
            store_slots=threading.BoundedSemaphore(settings.max_requests),
        )
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._exchanges: dict[Exchange, threading.Thread] = {}
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stop_signal = -1
        """Can be read from the moment on when the door closes."""
        self._accepted = 0

    def __enter__(self) -> StowDoor:
        """Start to listen.

        Raises:
            NodeStartError: The address or port cannot be had.
        """
        self._listener = _listen(self._settings.bind_address, self._settings.port)
        self._stop_signal = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(
            target=self._accept_all, args=(self._listener,), name="node-stow"
        )
        self._thread.start()
        _log.info("stow.listening", port=self.port, tls=self._terms.tls is not None)
        return self

    @property
    def port(self) -> int:
        """The port that the door listens on, while it does."""
        if self._listener is None:
            raise RuntimeError("the door is not open")
        return int(self._listener.getsockname()[1])

    def _accept_all(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, peer = listener.accept()
            except OSError as error:  # the door closes, or no descriptor is left
                if not self._stopping.wait(_ACCEPT_PAUSE_S):
                    _log.error("stow.accept_failed", error=type(error).__name__)
                continue
            self._take(connection, str(peer[0]))

    def _take(self, connection: socket.socket, address: str) -> None:
        """Give a connection its thread, or close it at a bound."""
        if not self._has_place(address):
            _log.warning("stow.connection_refused")
            connection.close()
            return
        try:
            exchange = Exchange(connection, address, self._terms, self._stop_signal)
        except OSError as error:
            _log.error("stow.connection_refused", error=type(error).__name__)
            connection.close()
            return
        self._accepted += 1
        thread = threading.Thread(
            target=self._serve, args=(exchange,), name=f"node-stow-{self._accepted}"
        )
        with self._lock:
            self._exchanges[exchange] = thread
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            _log.error("stow.connection_refused", error=type(error).__name__)
            self._forget(exchange)

    def _has_place(self, address: str) -> bool:
        with self._lock:
            present = list(self._exchanges)
        pending = sum(each.address == address and not each.is_admitted for each in present)
        most = self._settings.max_requests + _SPARE_CONNECTIONS
        return len(present) < most and pending < self._settings.max_pending_per_address

    def _serve(self, exchange: Exchange) -> None:
        try:
            exchange.run()
        finally:
            self._forget(exchange)

    def _forget(self, exchange: Exchange) -> None:
        exchange.close()
        with self._lock:
            del self._exchanges[exchange]

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening, end all requests and wait for their threads.

        What was stored by then is answered; the sender of the rest will send it again.
        """
        listener, thread = self._listener, self._thread
        if listener is None or thread is None:
            return
        self._listener = self._thread = None
        self._stopping.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts (Linux)
        thread.join()
        listener.close()
        self._end_exchanges()
        _log.info("stow.stopped")

    def _end_exchanges(self) -> None:
        with self._lock:
            left = dict(self._exchanges)
        os.eventfd_write(self._stop_signal, 1)
        for exchange in left:
            if not exchange.is_admitted:
                exchange.cut()
        _join_all(left.values(), self._settings.stop_grace_s)
        for exchange in left:
            exchange.cut()
        _join_all(left.values(), _CUT_GRACE_S)
        if not any(each.is_alive() for each in left.values()):
            os.close(self._stop_signal)


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise NodeStartError(
                f"cannot listen on {address} port {port} for STOW-RS: {error.strerror}; "
                "stop the program that has it, or set another node.stow.port"
            ) from error
        undo.pop_all()
    return listener


def _join_all(threads: Collection[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
