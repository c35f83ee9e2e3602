"""Carries the outbox to the broker: the only module that imports the MQTT client.

One thread of ours does everything, through the client's calls for foreign event loops; the
client's own queue, its reconnection and its threads are not used, because what they hold is lost
with the process. Every connection gets a fresh client, and what the last one had under way is
sent again from the outbox under its old name. Invariants: the ledger has a message before the
socket has it; a row leaves the outbox only after the broker's acknowledgement and after
``on_confirmed`` returned.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import Any

import structlog
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from telemetry.errors import BrokerUnreachableError, ConfirmLaterError, DeviceError
from telemetry.events import BirthEvent, DirectEvent, Presence, StateEvent, truncate_to_hour
from telemetry.flight import FIRST_ERROR_CODE, BackOff, Flight, Verdict, judge
from telemetry.guard import (
    MESSAGE_EXPIRY_S,
    EgressGuard,
    MessageId,
    SealedMessage,
    Stream,
)
from telemetry.ledger import Ledger, LedgerRecord
from telemetry.outbox import Outbox, OutboxRow, row_message
from telemetry.settings import MqttProtocol, MqttSettings
from telemetry.sockets import ClientContext, broker_failures, tls_context, wait_for

POLL_S = 1.0
"""The longest sleep: the client's keep-alive needs a look about once a second."""
SESSION_MARGIN_S = 60
"""A will delay counts only while the session lives (MQTT 5, 3.1.3.2.2), so that one is longer."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherStatus:
    """What the publisher has done since it was made."""

    connected: bool = False
    connections: int = 0
    delivered: int = 0
    refused: int = 0
    """Acknowledged with an error code; sent again later."""
    nobody_listens: int = 0
    last_failure: str | None = None
    """A stable code; None while connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ack:
    packet_id: int
    reason_code: int


class _Link:
    """One connection, on one thread. Everything that paho calls back lands in a field here."""

    def __init__(self, settings: MqttSettings, client_id: str) -> None:
        self._settings = settings
        self._is_v5 = settings.protocol is MqttProtocol.V5
        self.is_connected = False
        self.receive_maximum = 65_535
        self._failure: str | None = None
        self._acks: list[_Ack] = []
        self._tls: ClientContext | None = None
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            # MQTT 5 says it in CONNECT instead; 3.1.1 must not let the broker keep a session.
            clean_session=None if self._is_v5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self._is_v5 else MQTTProtocolVersion.MQTTv311,
            # Else paho tries an older protocol by itself.
            reconnect_on_failure=False,
        )
        self._client.connect_timeout = settings.connect_timeout_s
        # Ours is the smaller window; the margin is for state and birth.
        self._client.max_inflight_messages_set(settings.window + 8)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        if settings.username is not None:
            self._client.username_pw_set(settings.username, settings.password)

    def set_will(self, will: SealedMessage) -> None:
        """Leave the broker a retained message for when this connection dies."""
        properties = None
        if self._is_v5:
            properties = _properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = self._settings.will_delay_s
        self._client.will_set(will.topic, will.payload, qos=1, retain=True, properties=properties)

    def connect(self, before_first_byte: Callable[[], None]) -> None:
        """Reach the broker and wait for its answer.

        ``before_first_byte`` runs when the socket stands and nothing was sent on it; when it
        raises, nothing is sent.

        Raises:
            BrokerUnreachableError: No connection, no answer in time, or a refusal.
        """
        self._client.on_socket_open = lambda *_: before_first_byte()
        deadline_s = time.monotonic() + self._settings.connect_timeout_s
        with broker_failures():
            if self._settings.tls is not None:
                self._tls = tls_context(self._settings.tls)
                self._client.tls_set_context(self._tls)
            self._open()
        while not self.is_connected:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise BrokerUnreachableError("no_answer")
            self.poll(left_s, None)

    def _open(self) -> None:
        where = (self._settings.host, self._settings.port, self._settings.keepalive_s)
        if not self._is_v5:
            self._client.connect(*where)
            return
        properties = _properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._settings.will_delay_s + SESSION_MARGIN_S
        # A clean start would end the old session, and that fires the old will at once.
        self._client.connect(*where, clean_start=False, properties=properties)

    def send(self, message: SealedMessage, *, retain: bool = False) -> int:
        """Hand a message to the socket at QoS 1; return its packet id.

        Raises:
            BrokerUnreachableError: The connection is gone.
        """
        properties = None
        if self._is_v5 and not retain:
            properties = _properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = MESSAGE_EXPIRY_S[message.event_class]
        with broker_failures():
            info = self._client.publish(
                message.topic, message.payload, qos=1, retain=retain, properties=properties
            )
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise BrokerUnreachableError(self._failure or "lost")
        return info.mid

    def poll(self, timeout_s: float, wake: socket.socket | None) -> None:
        """Wait for the socket or a wake-up, and do what the connection needs.

        Raises:
            BrokerUnreachableError: The connection is gone.
        """
        sock = self._client.socket()
        if sock is None:
            raise BrokerUnreachableError(self._failure or "lost")
        ready = wait_for(sock, wake, timeout_s, want_write=self._client.want_write())
        with broker_failures():
            if ready & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._client.loop_read()
            if ready & select.POLLOUT:
                self._client.loop_write()
            self._client.loop_misc()
        if self._failure is not None:
            raise BrokerUnreachableError(self._failure)

    def take_acks(self) -> list[_Ack]:
        """Return the acknowledgements that came and were not taken yet."""
        taken, self._acks = self._acks, []
        return taken

    def take_ack_of(self, packet_id: int) -> _Ack | None:
        """Return the acknowledgement of one packet, if it came; leave the others."""
        for ack in self._acks:
            if ack.packet_id == packet_id:
                self._acks.remove(ack)
                return ack
        return None

    def disconnect(self) -> None:
        """Say goodbye, so that the broker throws the will away."""
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()

    def close(self) -> None:
        """Drop the socket; without ``disconnect`` before it, the will fires."""
        sock = self._client.socket()
        if sock is not None:
            sock.close()
        if self._tls is not None:
            self._tls.close()

    def _on_connect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        if code.value >= FIRST_ERROR_CODE:
            self._failure = f"refused_{code.value:#04x}"
            return
        self.is_connected = True
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        self._failure = self._failure or f"lost_{code.value:#04x}"

    def _on_publish(
        self, _client: paho.Client, _data: Any, packet_id: int, code: ReasonCode, _properties: Any
    ) -> None:
        self._acks.append(_Ack(packet_id=packet_id, reason_code=code.value))


class Publisher:
    """Owns the connection's thread. A context manager: the thread lives as long as its body."""

    def __init__(
        self,
        *,
        settings: MqttSettings,
        guard: EgressGuard,
        outbox: Outbox,
        ledger: Ledger,
        birth: Callable[[], BirthEvent],
        on_confirmed: Callable[[tuple[str, ...]], None],
        stop_grace_s: float = 3.0,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """Wire the parts; nothing is opened before the context is entered.

        Args:
            settings: The broker.
            guard: Encodes state and birth.
            outbox: What to send; closed by the caller after this context ended.
            ledger: Written before anything is sent; closed by the caller likewise.
            birth: Describes the device; asked on every connection, on the publisher's thread.
            on_confirmed: Gets the event keys that the broker vouches for, on the publisher's
                thread. It returns once that is durable; if it raises, it is asked again later.
            stop_grace_s: How long leaving the context goes on sending.
            wall_us: Wall-clock microseconds since the epoch.
        """
        self._settings = settings
        self._guard = guard
        self._outbox = outbox
        self._ledger = ledger
        self._birth = birth
        self._on_confirmed = on_confirmed
        self._stop_grace_s = stop_grace_s
        self._wall_us = wall_us
        self._back_off = BackOff(minimum_s=settings.backoff_min_s, maximum_s=settings.backoff_max_s)
        self._random = SystemRandom()
        self._status = PublisherStatus()
        self._direct_seq = 0
        self._confirm_again_s = 0.0
        self._stop = threading.Event()
        self._deadline_s = 0.0
        self._wake: tuple[socket.socket, socket.socket] | None = None
        # A daemon, because looking up a name cannot be cut short when the process has to end.
        self._thread = threading.Thread(target=self._run, name="telemetry-publisher", daemon=True)

    def __enter__(self) -> Publisher:
        self._wake = socket.socketpair()
        for end in self._wake:
            end.settimeout(0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline_s = time.monotonic() + self._stop_grace_s
        self._stop.set()
        self.wake()
        self._thread.join(self._stop_grace_s + 2 * self._settings.connect_timeout_s + POLL_S)
        if self._thread.is_alive():
            _log.error("telemetry.publisher_not_joined")
            return
        for end in self._wake or ():
            end.close()

    @property
    def status(self) -> PublisherStatus:
        """A snapshot, readable from any thread."""
        return self._status

    def wake(self) -> None:
        """Say that the outbox has something new; otherwise it is noticed within a second."""
        # Full means that a wake-up waits already; closed, that nobody is left to wake.
        with contextlib.suppress(OSError):
            if self._wake is not None:
                self._wake[1].send(b"\0")

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            connections = self._status.connections
            try:
                self._converse()
            except BrokerUnreachableError as error:
                reason = error.reason
            except DeviceError as error:
                reason = type(error).__name__
            except Exception as error:  # noqa: BLE001 - the thread's main boundary
                reason = type(error).__name__
                _log.error("telemetry.publisher_failed", error=reason)
            else:
                return
            failures = 1 if self._status.connections > connections else failures + 1
            self._status = replace(self._status, connected=False, last_failure=reason)
            delay_s = self._back_off.delay_s(failures, self._random.random())
            _log.warning("telemetry.not_connected", reason=reason, retry_s=round(delay_s, 1))
            self._stop.wait(delay_s)

    def _converse(self) -> None:
        """One connection, from CONNECT to its end; returns only when asked to stop."""
        link = _Link(self._settings, self._guard.device_id)
        will = self._seal(self._state(Presence.OFFLINE))
        link.set_will(will)
        try:
            link.connect(lambda: self._record([will]))
            self._status = replace(
                self._status,
                connected=True,
                connections=self._status.connections + 1,
                last_failure=None,
            )
            _log.info("telemetry.connected")
            self._announce(link)
            flight = Flight(
                window=min(self._settings.window, link.receive_maximum), back_off=self._back_off
            )
            while not self._stop.is_set():
                self._feed(link, flight)
                self._listen(link, flight)
            self._leave(link, flight)
        finally:
            link.close()

    def _announce(self, link: _Link) -> None:
        """State and birth belong to this connection, so they skip the outbox."""
        self._send_now(link, self._seal(self._state(Presence.ONLINE)), retain=True)
        self._send_now(link, self._seal(self._birth()), retain=False)

    def _send_now(self, link: _Link, message: SealedMessage, *, retain: bool) -> None:
        """Send one message and wait for its acknowledgement, so that it takes no window."""
        self._record([message])
        packet_id = link.send(message, retain=retain)
        deadline_s = time.monotonic() + self._settings.connect_timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            link.poll(left_s, None)
            ack = link.take_ack_of(packet_id)
            if ack is None:
                continue
            if ack.reason_code >= FIRST_ERROR_CODE:
                self._note_refusal(ack)
            return
        raise BrokerUnreachableError("no_acknowledgement")

    def _listen(self, link: _Link, flight: Flight) -> None:
        try:
            link.poll(POLL_S, self._wake[0] if self._wake else None)
        finally:
            # Also when the connection just ended: what it acknowledged need not be sent again.
            self._take_acks(link, flight)
            self._confirm(flight)
        self._drain_wake_ups()
        if flight.is_overdue(time.monotonic(), self._settings.ack_timeout_s):
            raise BrokerUnreachableError("no_acknowledgement")

    def _feed(self, link: _Link, flight: Flight) -> bool:
        """Fill the window; tell whether anything was sent."""
        now_s = time.monotonic()
        rows = flight.admit(self._outbox.oldest(flight.window), now_s)
        self._record_rows([row for row in rows if row.ledger_seq is None])
        for row in rows:
            packet_id = link.send(row_message(self._guard, row))
            flight.sent(packet_id, row, now_s)
        return bool(rows)

    def _take_acks(self, link: _Link, flight: Flight) -> None:
        for ack in link.take_acks():
            verdict = judge(ack.reason_code, require_subscriber=self._settings.require_subscriber)
            flight.acknowledged(
                ack.packet_id, verdict, now_s=time.monotonic(), draw=self._random.random()
            )
            if verdict is Verdict.REFUSED:
                self._note_refusal(ack)
            elif verdict is Verdict.NOBODY_LISTENS:
                nobody_listens = self._status.nobody_listens + 1
                self._status = replace(self._status, nobody_listens=nobody_listens)

    def _note_refusal(self, ack: _Ack) -> None:
        self._status = replace(self._status, refused=self._status.refused + 1)
        _log.warning("telemetry.message_refused", code=f"{ack.reason_code:#04x}")

    def _confirm(self, flight: Flight) -> None:
        rows = flight.delivered()
        if not rows or time.monotonic() < self._confirm_again_s:
            return
        try:
            self._on_confirmed(tuple(row.event_key for row in rows))
        except Exception as error:  # noqa: BLE001 - the caller's code; asked again later
            if not isinstance(error, ConfirmLaterError):
                _log.warning("telemetry.confirmation_failed", error=type(error).__name__)
            self._confirm_again_s = time.monotonic() + self._settings.backoff_min_s
            return
        self._outbox.delete([row.row_id for row in rows])
        flight.settle(rows)
        self._status = replace(self._status, delivered=self._status.delivered + len(rows))

    def _leave(self, link: _Link, flight: Flight) -> None:
        """Send what is left, within the grace; then say that the device goes, and go."""
        while time.monotonic() < self._deadline_s:
            if not self._feed(link, flight) and not flight.is_under_way():
                break
            self._listen(link, flight)
        self._send_now(link, self._seal(self._state(Presence.OFFLINE)), retain=True)
        # What the grace was too short for may have been acknowledged in the meantime.
        self._take_acks(link, flight)
        self._confirm(flight)
        link.disconnect()
        self._status = replace(self._status, connected=False)

    def _record(self, messages: Sequence[SealedMessage]) -> None:
        self._ledger.append(_records(messages), self._wall_us())

    def _record_rows(self, rows: Sequence[OutboxRow]) -> None:
        if not rows:
            return
        messages = [row_message(self._guard, row) for row in rows]
        head = self._ledger.append(_records(messages), self._wall_us())
        first = head.seq - len(rows) + 1
        self._outbox.mark_ledgered(
            {row.row_id: first + place for place, row in enumerate(rows)}, head
        )

    def _state(self, presence: Presence) -> StateEvent:
        return StateEvent(hour_wall_us=truncate_to_hour(self._wall_us()), presence=presence)

    def _seal(self, event: DirectEvent) -> SealedMessage:
        self._direct_seq += 1
        message_id = MessageId(epoch=self._outbox.epoch, stream=Stream.DIRECT, seq=self._direct_seq)
        return self._guard.encode(event, message_id)

    def _drain_wake_ups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake is not None and self._wake[0].recv(4_096):
                pass


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves it untyped


def probe_broker(settings: MqttSettings, device_id: str) -> None:
    """Connect as ``{device_id}-probe``, which disturbs no running session, and leave again.

    Raises:
        BrokerUnreachableError: It cannot be done; ``reason`` says why.
    """
    link = _Link(settings, f"{device_id}-probe")
    try:
        link.connect(lambda: None)
        link.disconnect()
    finally:
        link.close()


def _records(messages: Sequence[SealedMessage]) -> list[LedgerRecord]:
    return [LedgerRecord(topic=message.topic, payload=message.payload) for message in messages]
