"""The publisher without a broker: what goes wrong on the way is told by a code, and waits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemetry.errors import BrokerUnreachableError
from telemetry.events import AnalysisEvent, BirthEvent
from telemetry.guard import EgressGuard
from telemetry.ledger import Ledger, read_entries
from telemetry.outbox import Outbox, OutboxItem
from telemetry.publisher import Publisher, probe_broker
from telemetry.settings import MqttSettings, TlsSettings


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def settings(port: int) -> MqttSettings:
    return MqttSettings(
        host="127.0.0.1",
        port=port,
        connect_timeout_s=0.3,
        backoff_min_s=0.01,
        backoff_max_s=0.02,
    )


def test_closed_port_is_told_as_refused(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(BrokerUnreachableError) as failed:
        probe_broker(settings(port), "d41d8cd98f00")
    assert failed.value.reason == "refused"


def test_silent_peer_is_told_as_no_answer(listener: socket.socket) -> None:
    with pytest.raises(BrokerUnreachableError) as failed:
        probe_broker(settings(listener.getsockname()[1]), "d41d8cd98f00")
    assert failed.value.reason == "no_answer"


def test_unknown_name_is_told(listener: socket.socket) -> None:
    nowhere = MqttSettings(host="no-such-broker.invalid", port=listener.getsockname()[1])
    with pytest.raises(BrokerUnreachableError) as failed:
        probe_broker(nowhere, "d41d8cd98f00")
    assert failed.value.reason == "name_unknown"


def test_missing_certificate_file_is_told(listener: socket.socket, tmp_path: Path) -> None:
    tls = MqttSettings(
        host="127.0.0.1",
        port=listener.getsockname()[1],
        tls=TlsSettings(ca_file=tmp_path / "not-there.pem"),
    )
    with pytest.raises(BrokerUnreachableError) as failed:
        probe_broker(tls, "d41d8cd98f00")
    assert failed.value.reason == "tls_file_missing"


def test_peer_that_answers_garbage_is_left(listener: socket.socket) -> None:
    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.recv(1_000)

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(BrokerUnreachableError):
        probe_broker(settings(listener.getsockname()[1]), "d41d8cd98f00")
    thread.join()


Publish = Callable[[MqttSettings], Publisher]


@pytest.fixture
def publish(guard: EgressGuard, ledger: Ledger, outbox: Outbox, birth: BirthEvent) -> Publish:
    def make(mqtt: MqttSettings) -> Publisher:
        return Publisher(
            settings=mqtt,
            guard=guard,
            outbox=outbox,
            ledger=ledger,
            birth=lambda: birth,
            on_confirmed=lambda _: pytest.fail("nothing was delivered"),
            stop_grace_s=0.1,
        )

    return make


def test_publisher_without_a_broker_tries_again_and_keeps_everything(
    listener: socket.socket, publish: Publish, outbox: Outbox, analysis: AnalysisEvent
) -> None:
    outbox.put([OutboxItem(event_key="a", event=analysis)])
    with publish(settings(listener.getsockname()[1])) as publisher:
        listener.settimeout(10)
        for _ in range(3):
            peer, _ = listener.accept()
            # CONNECT arrived; the peer hangs up.
            assert peer.recv(1)[0] >> 4 == 1
            peer.close()
    assert publisher.status.connections == 0
    assert publisher.status.last_failure is not None
    assert outbox.statistics().waiting == 1


def test_will_is_in_the_ledger_before_it_is_sent(
    listener: socket.socket, publish: Publish, ledger: Ledger
) -> None:
    with publish(settings(listener.getsockname()[1])):
        listener.settimeout(10)
        peer, _ = listener.accept()
        peer.settimeout(10)
        sent = peer.recv(4_096)
        (will, *_) = read_entries(ledger.path)
        peer.close()
    assert will.payload.encode() in sent


def test_publisher_stops_while_it_waits_to_try_again(
    listener: socket.socket, publish: Publish, ledger: Ledger
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    mqtt = MqttSettings(host="127.0.0.1", port=port, backoff_min_s=60, backoff_max_s=60)
    with publish(mqtt) as publisher:
        pass
    assert not publisher._thread.is_alive()
    assert ledger.head is None  # no socket stood, so nothing was about to leave


def test_broker_that_acknowledges_nothing_is_left(
    listener: socket.socket, publish: Publish, outbox: Outbox, analysis: AnalysisEvent
) -> None:
    outbox.put([OutboxItem(event_key="a", event=analysis)])
    with publish(settings(listener.getsockname()[1])) as publisher:
        listener.settimeout(10)
        for _ in range(2):
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(10)
                peer.recv(4_096)
                peer.sendall(b"\x20\x03\x00\x00\x00")  # CONNACK, success (MQTT 5, 3.2)
                while peer.recv(4_096):
                    pass  # it takes what comes until the publisher hangs up
    assert publisher.status.connections == 2
    assert publisher.status.last_failure == "no_acknowledgement"
    assert outbox.statistics().waiting == 1
