"""One connection of the STOW-RS door: one request, one answer, then it is closed.

Plain blocking code in the connection's own thread: while an instance is written, nothing more is
read, so the network holds the sender back and memory stays flat. h11 speaks HTTP/1.1; because no
connection carries a second request, nothing can be smuggled behind the first (RFC 9112 11.2).

* The head has a deadline, and so has the TLS handshake.
* A body that stops, or that comes slower than the least rate, is cut off.
* The instances that were complete by then stay, and the sender is told if it still listens.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TypeAlias

import h11
import structlog

from dicom_node.errors import DeviceError, HandshakeError, MultipartError, TooManyPartsError
from dicom_node.reception import Caller, StoreSession
from dicom_node.stow_intake import Intake
from dicom_node.stow_request import (
    Answer,
    Head,
    StoreRequest,
    StowPolicy,
    decide_request,
    refusal,
)
from dicom_node.stow_response import RETRY_AFTER_S, encode_report, status_of
from dicom_node.tls import ServerTls, certificate_sha256

_log = structlog.get_logger()

_MAX_HEAD_BYTES = 16 * 1024
_READ_BYTES = 256 * 1024
# A sender that is refused early is still sending. If we closed at once, its system would throw the
# answer away with the connection; so a little more is read, and forgotten.
_LINGER_S = 2.0
_LINGER_BYTES = 4 << 20
_IS_READ_WHOLE = frozenset({h11.DONE, h11.MUST_CLOSE, h11.CLOSED})
_RETRY_AFTER = ("Retry-After", str(RETRY_AFTER_S))

_Event: TypeAlias = "h11.Event | type[h11.NEED_DATA | h11.PAUSED]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTerms:
    """What all connections of the door share."""

    policy: StowPolicy
    tls: ServerTls | None
    """None: clear text."""
    open_session: Callable[[str, Caller], StoreSession]
    """``(association id, caller)``."""
    check_room: Callable[[], None]
    """Raises a ``DeviceError`` while nothing can be stored."""
    sop_classes: frozenset[str] = field(repr=False)
    max_parts: int
    head_timeout_s: float
    idle_timeout_s: float
    min_bytes_per_s: int
    rate_window_s: float
    store_slots: threading.BoundedSemaphore
    """One for each request that may store at the same time."""


class _InterruptedError(Exception):
    """The rest of a request cannot or shall not be read."""

    def __init__(self, status: HTTPStatus, remedy: str) -> None:
        super().__init__(remedy)
        self.status = status


class RateFloor:
    """Tells a sender that is too slow from one that waits for our disk."""

    def __init__(self, min_bytes_per_s: int, window_s: float) -> None:
        """The rate is an average over ``window_s`` of waiting, so that short pauses do no harm."""
        self._min_bytes_per_s = min_bytes_per_s
        self._window_s = window_s
        self._waited_s = 0.0
        self._received = 0

    def holds(self, waited_s: float, received: int) -> bool:
        """Take note of one read; whether the sender has kept the least rate.

        Args:
            waited_s: How long the read took.
            received: Bytes that it brought.
        """
        self._waited_s += waited_s
        self._received += received
        if self._waited_s < self._window_s:
            return True
        is_kept = self._received >= self._min_bytes_per_s * self._waited_s
        self._waited_s, self._received = 0.0, 0
        return is_kept


class Exchange:
    """One accepted connection; ``run`` has its thread, and ``cut`` may come from another."""

    def __init__(
        self, connection: socket.socket, address: str, terms: ExchangeTerms, stopping: int
    ) -> None:
        """Take over ``connection``, as it was accepted.

        Args:
            connection: Not encrypted yet.
            address: Of the peer.
            terms: The door's.
            stopping: A descriptor that can be read once nothing more shall be read from peers.

        Raises:
            OSError: No descriptor is left.
        """
        self.address = address
        self.is_admitted = False
        """It has shown a valid token."""
        self._connection = connection
        # For the other threads: a second name of the connection, which TLS does not replace.
        self._handle = connection.dup()
        self._terms = terms
        self._stopping = stopping
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._floor = RateFloor(terms.min_bytes_per_s, terms.rate_window_s)
        self._is_head_only = False
        """The answer has no body (RFC 9110 9.3.2)."""

    def cut(self) -> None:
        """Close the connection without a word."""
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self._handle.shutdown(how)

    def run(self) -> None:
        """Serve the connection to its end; ``close`` it afterwards."""
        try:
            self._serve()
        except HandshakeError as error:
            _log.warning("stow.handshake_failed", fault=error.fault.value)
        except (OSError, h11.ProtocolError) as error:
            _log.info("stow.connection_lost", error=type(error).__name__)
        except Exception as error:  # noqa: BLE001  boundary: the door outlives any request
            # The text of a foreign error may hold values, so only its type and place are logged.
            _log.error(
                "stow.connection_failed",
                error=type(error).__name__,
                place=[
                    f"{each.name}:{each.lineno}"
                    for each in traceback.extract_tb(error.__traceback__)
                ],
            )

    def close(self) -> None:
        """Let go of the connection, once ``run`` has ended or if it never began."""
        self._connection.close()
        self._handle.close()

    def _serve(self) -> None:
        deadline = time.monotonic() + self._terms.head_timeout_s
        if self._terms.tls is not None:
            self._connection = self._terms.tls.accept(self._connection, self._terms.head_timeout_s)
        try:
            head = self._read_head(deadline)
            if head is None:
                return
            self._is_head_only = head.method == "HEAD"
            answer = self._answer(head)
        except _InterruptedError as interruption:
            answer = refusal(interruption.status, str(interruption))
        self._send(answer)
        if self._http.their_state not in _IS_READ_WHOLE:
            self._linger()

    # ------------------------------------------------------------ reading

    def _read_head(self, deadline: float) -> Head | None:
        """The head of the request; None if the peer goes without one."""
        while (event := self._next_event()) is h11.NEED_DATA:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the head of the request took too long")
            self._connection.settimeout(left_s)
            self._http.receive_data(self._connection.recv(_MAX_HEAD_BYTES))
        if not isinstance(event, h11.Request):
            return None
        headers: dict[str, str] = {}
        for name, value in (
            (key.decode("ascii"), raw.decode("latin-1")) for key, raw in event.headers
        ):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        encrypted = self._connection if isinstance(self._connection, ssl.SSLSocket) else None
        return Head(
            method=event.method.decode("ascii"),
            target=event.target.decode("ascii"),
            headers=headers,
            address=self.address,
            is_encrypted=encrypted is not None,
            certificate_sha256=certificate_sha256(encrypted) if encrypted else None,
        )

    def _next_event(self) -> _Event:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            raise _InterruptedError(status, "this is no whole HTTP/1.1 request") from error

    def _body(self) -> Iterator[bytes]:
        """The pieces of the body as they arrive.

        Raises:
            _InterruptedError: It stalls, is too large, is malformed, or the device stops.
        """
        left = self._terms.policy.max_request_bytes
        self._connection.settimeout(self._terms.idle_timeout_s)
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                self._receive()
            elif isinstance(event, h11.Data):
                left -= len(event.data)
                if left < 0:
                    raise _InterruptedError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        "too large; send the study in several requests",
                    )
                yield bytes(event.data)

    def _receive(self) -> None:
        """Wait for the next piece of the body."""
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self._write(self._http.send(go_on) or b"")
        began = time.monotonic()
        try:
            self._wait_until_readable()
            data = self._connection.recv(_READ_BYTES)
        except TimeoutError as error:
            raise _InterruptedError(
                HTTPStatus.REQUEST_TIMEOUT, "the body stalled; send it again"
            ) from error
        if not self._floor.holds(time.monotonic() - began, len(data)):
            raise _InterruptedError(
                HTTPStatus.REQUEST_TIMEOUT, "slower than node.stow.min_bytes_per_s"
            )
        self._http.receive_data(data)

    def _wait_until_readable(self) -> None:
        """Wait for the peer or for the end of the door, whichever comes first.

        The door cannot just shut the connection for reading: TLS would take that for an attack,
        and let no answer through any more.
        """
        if isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
            return
        waiting = select.poll()
        for descriptor in (self._connection.fileno(), self._stopping):
            waiting.register(descriptor, select.POLLIN)
        ready = dict(waiting.poll(self._terms.idle_timeout_s * 1_000))
        if self._stopping in ready:
            raise _InterruptedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the device stops; send it again"
            )
        if not ready:
            raise TimeoutError

    # ------------------------------------------------------------ storing

    def _answer(self, head: Head) -> Answer:
        decision = decide_request(self._terms.policy, head)
        if isinstance(decision, Answer):
            _log.warning("stow.request_refused", status=int(decision.status))
            return decision
        self.is_admitted = True
        if not self._terms.store_slots.acquire(blocking=False):
            _log.warning("stow.request_refused", status=int(HTTPStatus.SERVICE_UNAVAILABLE))
            return refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at a time", _RETRY_AFTER
            )
        try:
            self._terms.check_room()
            return self._store(decision)
        except DeviceError as error:
            _log.warning("stow.request_refused", error=type(error).__name__)
            return refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "no room on the device; try later", _RETRY_AFTER
            )
        finally:
            self._terms.store_slots.release()

    def _store(self, request: StoreRequest) -> Answer:
        association_id = secrets.token_hex(8)
        session = self._terms.open_session(association_id, request.caller)
        intake = Intake(
            session,
            boundary=request.boundary,
            study_instance_uid=request.study_instance_uid,
            sop_classes=self._terms.sop_classes,
            max_parts=self._terms.max_parts,
        )
        interruption: _InterruptedError | None = None
        is_whole = False
        try:
            self._take_in(intake)
            is_whole = True
        except _InterruptedError as error:
            interruption = error
        finally:
            _close(session, released=is_whole)
        status = status_of(intake.results, interruption.status if interruption else None)
        _log.info(
            "stow.request_answered",
            association_id=association_id,
            status=int(status),
            stored=sum(each.is_stored for each in intake.results),
            failed=sum(not each.is_stored for each in intake.results),
            interrupted=str(interruption) if interruption else None,
        )
        retry = (_RETRY_AFTER,) if status is HTTPStatus.SERVICE_UNAVAILABLE else ()
        if interruption is not None and not intake.results:
            return refusal(status, str(interruption), *retry)
        return Answer(
            status=status,
            body=encode_report(intake.results, is_interrupted=interruption is not None),
            headers=(("Content-Type", request.report_type), *retry),
        )

    def _take_in(self, intake: Intake) -> None:
        """Store what the body brings.

        Raises:
            _InterruptedError: Not all of it could be read.
        """
        try:
            for data in self._body():
                intake.feed(data)
            intake.finish()
        except TooManyPartsError as error:
            raise _InterruptedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error
        except MultipartError as error:
            raise _InterruptedError(HTTPStatus.BAD_REQUEST, str(error)) from error

    # ------------------------------------------------------------ answering

    def _send(self, answer: Answer) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Cache-Control", "no-store"),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
        ]
        response = h11.Response(
            status_code=int(answer.status), headers=headers, reason=answer.status.phrase
        )
        head = self._http.send(response) or b""
        self._write(head if self._is_head_only else head + answer.body)

    def _write(self, data: bytes) -> None:
        """Send all of it within the idle timeout, however little the peer takes at a time."""
        deadline = time.monotonic() + self._terms.idle_timeout_s
        view = memoryview(data)
        while view:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the peer does not take the answer")
            self._connection.settimeout(left_s)
            view = view[self._connection.send(view) :]
        self._connection.settimeout(self._terms.idle_timeout_s)

    def _linger(self) -> None:
        """Give the peer a moment to hear the answer (RFC 9112 9.6)."""
        self._shut(socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER_S
        left = _LINGER_BYTES
        with contextlib.suppress(OSError):
            while left > 0 and (left_s := deadline - time.monotonic()) > 0:
                self._connection.settimeout(left_s)
                data = self._connection.recv(_READ_BYTES)
                if not data:
                    return
                left -= len(data)


def _close(session: StoreSession, *, released: bool) -> None:
    """End the session; the instances are durable by now, so the sender hears of them anyway."""
    try:
        session.close(released=released)
    except Exception as error:  # noqa: BLE001  boundary: the index is the device's, not ours
        _log.error("stow.session_not_closed", error=type(error).__name__)
