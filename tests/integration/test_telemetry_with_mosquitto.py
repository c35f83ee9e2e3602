"""From event to a real broker and back: what arrives, what waits, what is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from simulators.broker import Broker

from telemetry.closed import HOUR_US
from telemetry.errors import BrokerUnreachableError
from telemetry.events import (
    AnalysisEvent,
    Architecture,
    BirthEvent,
    EngineBackend,
    Outcome,
)
from telemetry.guard import EgressGuard
from telemetry.ledger import Ledger, read_entries, verify
from telemetry.outbox import Outbox, OutboxItem
from telemetry.policy import EgressPolicy, ModelRef, Version
from telemetry.publisher import Publisher, probe_broker
from telemetry.settings import MqttProtocol, MqttSettings, TlsSettings

pytestmark = pytest.mark.peer

DEADLINE_S = 30.0
DEVICE = "d41d8cd98f00"
STATE_TOPIC = f"f/v1/{DEVICE}/up/state"
MODEL = ModelRef(name="head_ct_hyperdense", version=Version(major=1, minor=0, patch=0))
GUARD = EgressGuard(EgressPolicy(device_id=DEVICE, models=frozenset({MODEL})))
ANALYSIS = AnalysisEvent(
    hour_wall_us=490_000 * HOUR_US,
    clock_synced=True,
    outcome=Outcome.SUSPECTED,
    reason=None,
    model=MODEL,
    revision=1,
    instances=40,
    score=0.93,
    backend=EngineBackend.ONNXRUNTIME_CPU,
    receive_ms=4_000,
    wait_ms=10,
    analyse_ms=200,
    time_to_notification_ms=300,
)
BIRTH = BirthEvent(
    hour_wall_us=490_000 * HOUR_US,
    clock_synced=True,
    boot_counter=1,
    software=Version(major=0, minor=1, patch=0),
    python=Version(major=3, minor=11, patch=2),
    architecture=Architecture.X86_64,
    backends=(EngineBackend.ONNXRUNTIME_CPU,),
    in_place_of=(),
    models=(MODEL,),
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker(tmp_path / "broker") as started:
        yield started


@contextmanager
def running_broker(
    folder: Path, extra: Sequence[str] = ("allow_anonymous true",)
) -> Iterator[Broker]:
    started = Broker(folder, extra)
    started.start()
    try:
        yield started
    finally:
        started.stop()


@dataclass
class Arrivals:
    """What a subscriber got, or a device had confirmed; one can wait on it."""

    items: list[Any] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, items: Sequence[Any]) -> None:
        with self.changed:
            self.items.extend(items)
            self.changed.notify_all()

    def wait_for(self, claim: Callable[[list[Any]], bool]) -> list[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: claim(self.items), DEADLINE_S), self.items[-5:]
            return list(self.items)


@dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    retained: bool

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.payload)
        return body

    @property
    def id(self) -> str:
        return str(self.body["id"])


@contextmanager
def subscriber(port: int, topic: str = "f/v1/+/up/#") -> Iterator[Arrivals]:
    """The fleet's side: any MQTT client."""
    arrivals = Arrivals()
    subscribed = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def on_message(_client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        got = Message(topic=message.topic, payload=bytes(message.payload), retained=message.retain)
        arrivals.add([got])

    def on_connect(*_: Any) -> None:
        client.subscribe(topic, qos=1)

    def on_subscribe(*_: Any) -> None:
        subscribed.set()

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert subscribed.wait(DEADLINE_S)
        yield arrivals
    finally:
        client.disconnect()
        client.loop_stop()


def settings(broker: Broker, protocol: MqttProtocol = MqttProtocol.V5) -> MqttSettings:
    return MqttSettings(
        host="127.0.0.1",
        port=broker.port,
        protocol=protocol,
        will_delay_s=1,
        backoff_min_s=0.05,
        backoff_max_s=0.2,
    )


@dataclass(frozen=True)
class Device:
    outbox: Outbox
    ledger: Ledger
    publisher: Publisher
    confirmed: Arrivals

    def put(self, keys: Sequence[str]) -> None:
        self.outbox.put([OutboxItem(event_key=key, event=ANALYSIS) for key in keys])
        self.publisher.wake()

    def wait_until_confirmed(self, keys: Sequence[str]) -> None:
        self.confirmed.wait_for(lambda got: set(keys) <= set(got))


@contextmanager
def device(
    folder: Path,
    mqtt: MqttSettings,
    on_confirmed: Callable[[tuple[str, ...]], None] = lambda _: None,
    birth: Callable[[], BirthEvent] = lambda: BIRTH,
) -> Iterator[Device]:
    confirmed = Arrivals()

    def confirm(keys: tuple[str, ...]) -> None:
        on_confirmed(keys)
        confirmed.add(keys)

    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder / "ledger"))
        outbox = stack.enter_context(Outbox(folder / "telemetry" / "outbox.db", guard=GUARD))
        publisher = stack.enter_context(
            Publisher(
                settings=mqtt,
                guard=GUARD,
                outbox=outbox,
                ledger=ledger,
                birth=birth,
                on_confirmed=confirm,
            )
        )
        yield Device(outbox=outbox, ledger=ledger, publisher=publisher, confirmed=confirmed)


def of_type(messages: Sequence[Message], name: str) -> list[Message]:
    return [message for message in messages if message.body["type"] == f"edge-triage.{name}.v1"]


both_protocols = pytest.mark.parametrize("protocol", list(MqttProtocol))


@both_protocols
def test_state_birth_and_event_arrive_and_a_clean_stop_says_offline(
    tmp_path: Path, broker: Broker, protocol: MqttProtocol
) -> None:
    with subscriber(broker.port) as arrivals:
        with device(tmp_path, settings(broker, protocol)) as alive:
            alive.put(["a", "b"])
            alive.wait_until_confirmed(["a", "b"])
        got = arrivals.wait_for(lambda messages: len(messages) >= 5)
    assert [(message.topic.rpartition("/")[2], message.id) for message in got] == [
        ("state", "1-d2"),
        ("birth", "1-d3"),
        ("event", "1-q1"),
        ("event", "1-q2"),
        ("state", "1-d4"),
    ]
    assert [message.body["data"]["presence"] for message in of_type(got, "state")] == [
        "online",
        "offline",
    ]
    assert got[1].body["data"]["models"] == [{"name": MODEL.name, "version": "1.0.0"}]
    assert got[2].body["data"]["outcome"] == "suspected"


def test_everything_that_arrived_stands_in_the_ledger(tmp_path: Path, broker: Broker) -> None:
    with subscriber(broker.port) as arrivals:
        with device(tmp_path, settings(broker)) as alive:
            keys = [f"k{number}" for number in range(30)]
            alive.put(keys)
            alive.wait_until_confirmed(keys)
            anchor = alive.outbox.ledger_head()
        got = arrivals.wait_for(lambda messages: len(messages) >= 33)
    path = tmp_path / "ledger" / "egress.jsonl"
    assert verify(path, at_least=anchor).findings == ()
    entries = [(entry.topic, entry.payload.encode()) for entry in read_entries(path)]
    assert [(message.topic, message.payload) for message in got] == entries[1:]
    assert json.loads(entries[0][1])["data"]["presence"] == "offline"  # the will


def test_outbox_is_empty_after_the_confirmation(tmp_path: Path, broker: Broker) -> None:
    keys = [f"k{number}" for number in range(200)]
    with device(tmp_path, settings(broker)) as alive:
        alive.put(keys)
        alive.wait_until_confirmed(keys)
    with Outbox(tmp_path / "telemetry" / "outbox.db", guard=GUARD) as outbox:
        assert outbox.statistics().waiting == 0
    assert alive.publisher.status.delivered == 200
    assert sorted(alive.confirmed.items) == sorted(keys)


def test_event_stays_until_the_device_has_taken_the_confirmation(
    tmp_path: Path, broker: Broker
) -> None:
    asked = Arrivals()

    def busy_at_first(keys: tuple[str, ...]) -> None:
        asked.add(keys)
        if len(asked.items) == 1:
            raise RuntimeError("the database is locked")

    with (
        subscriber(broker.port) as arrivals,
        device(tmp_path, settings(broker), busy_at_first) as alive,
    ):
        alive.put(["a"])
        alive.wait_until_confirmed(["a"])
        assert asked.items == ["a", "a"]
        arrivals.wait_for(lambda messages: len(of_type(messages, "analysis")) == 1)


def test_device_that_cannot_describe_itself_yet_tries_again(tmp_path: Path, broker: Broker) -> None:
    asked: list[int] = []

    def not_at_first() -> BirthEvent:
        asked.append(len(asked))
        if len(asked) == 1:
            raise RuntimeError("the models are not loaded yet")
        return BIRTH

    with device(tmp_path, settings(broker), birth=not_at_first) as alive:
        alive.put(["a"])
        alive.wait_until_confirmed(["a"])
    assert len(asked) == 2


@both_protocols
def test_state_is_retained_for_who_comes_later(
    tmp_path: Path, broker: Broker, protocol: MqttProtocol
) -> None:
    with device(tmp_path, settings(broker, protocol)) as alive:
        alive.put(["a"])
        alive.wait_until_confirmed(["a"])
        with subscriber(broker.port, STATE_TOPIC) as arrivals:
            (state,) = arrivals.wait_for(lambda messages: len(messages) == 1)
    assert state.retained
    assert state.body["data"]["presence"] == "online"


def test_broker_that_was_away_gets_what_waited(tmp_path: Path, broker: Broker) -> None:
    mqtt = replace(settings(broker), require_subscriber=True)
    before, during = ["a", "b"], [f"k{number}" for number in range(50)]
    with device(tmp_path, mqtt) as alive:
        with subscriber(broker.port) as arrivals:
            alive.put(before)
            alive.wait_until_confirmed(before)
            arrivals.wait_for(lambda messages: len(of_type(messages, "analysis")) == 2)
        broker.stop()
        alive.put(during)
        broker.start()
        with subscriber(broker.port) as arrivals:
            alive.wait_until_confirmed(during)
            got = arrivals.wait_for(lambda m: len({x.id for x in of_type(m, "analysis")}) >= 50)
        assert alive.publisher.status.connections >= 2
    assert {message.id for message in of_type(got, "analysis")} == {
        f"1-q{number}" for number in range(3, 53)
    }


def test_message_that_nobody_gets_waits_where_a_subscriber_is_required(
    tmp_path: Path, broker: Broker
) -> None:
    mqtt = replace(settings(broker), require_subscriber=True)
    with device(tmp_path, mqtt) as alive:
        alive.put(["a"])
        deadline_s = time.monotonic() + DEADLINE_S
        while alive.publisher.status.nobody_listens < 2:
            assert time.monotonic() < deadline_s
            alive.publisher.wake()
        assert alive.outbox.statistics().waiting == 1
        with subscriber(broker.port) as arrivals:
            alive.wait_until_confirmed(["a"])
            arrivals.wait_for(lambda messages: len(of_type(messages, "analysis")) == 1)
    sent = [entry.payload for entry in read_entries(tmp_path / "ledger" / "egress.jsonl")]
    assert len([payload for payload in sent if "analysis.v1" in payload]) == 1


def test_message_that_the_broker_refuses_stays(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text(f"topic write {STATE_TOPIC}\n")
    extra = ("allow_anonymous true", f"acl_file {tmp_path / 'acl'}")
    with (
        running_broker(tmp_path / "broker", extra) as strict,
        device(tmp_path, settings(strict)) as alive,
    ):
        alive.put(["a"])
        deadline_s = time.monotonic() + DEADLINE_S
        while alive.publisher.status.refused < 3:  # birth, and the event twice
            assert time.monotonic() < deadline_s
            alive.publisher.wake()
        assert alive.outbox.statistics().waiting == 1
        assert alive.confirmed.items == []


def test_broker_that_takes_one_at_a_time_is_not_overrun(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(60)]
    extra = ("allow_anonymous true", "max_inflight_messages 1")
    with (
        running_broker(tmp_path / "broker", extra) as slow,
        device(tmp_path, settings(slow)) as alive,
    ):
        alive.put(keys)
        alive.wait_until_confirmed(keys)
        assert alive.publisher.status.connections == 1


KILLED_DEVICE = """
import sys
from pathlib import Path
from telemetry.events import *
from telemetry.guard import EgressGuard
from telemetry.ledger import Ledger
from telemetry.outbox import Outbox, OutboxItem
from telemetry.policy import EgressPolicy, ModelRef, Version
from telemetry.publisher import Publisher
from telemetry.settings import MqttSettings

folder, port, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
one = Version(major=1, minor=0, patch=0)
model = ModelRef(name="head_ct_hyperdense", version=one)
guard = EgressGuard(EgressPolicy(device_id="d41d8cd98f00", models=frozenset({model})))
birth = BirthEvent(
    hour_wall_us=0, clock_synced=True, boot_counter=0, software=one, python=one,
    architecture=Architecture.OTHER, backends=(), in_place_of=(), models=(),
)
with Ledger(folder / "ledger") as ledger, \\
     Outbox(folder / "telemetry" / "outbox.db", guard=guard) as outbox, \\
     Publisher(
        settings=MqttSettings(host="127.0.0.1", port=port, will_delay_s=1), guard=guard,
        outbox=outbox, ledger=ledger, birth=lambda: birth, on_confirmed=lambda keys: None,
     ) as publisher:
    while True:
        events = [
            OutboxItem(event_key=f"k{number}", event=AnalysisEvent(
                hour_wall_us=0, clock_synced=True, outcome=Outcome.SUSPECTED, reason=None,
                model=model, revision=1, instances=number, score=None, backend=None,
                receive_ms=None, wait_ms=None, analyse_ms=None, time_to_notification_ms=None,
            ))
            for number in range(first, first + 5)
        ]
        outbox.put(events)
        publisher.wake()
        first += 5
        print("promised", first - 1, flush=True)
"""


def run_and_kill(folder: Path, broker: Broker, first: int, arrivals: Arrivals, more: int) -> int:
    """Run a device until ``more`` messages came, kill it; return its last promised number."""
    enough = len(arrivals.items) + more
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_DEVICE, str(folder), str(broker.port), str(first)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        arrivals.wait_for(lambda messages: len(messages) >= enough)
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        said = [line.split() for line in process.stdout]
        promises = [int(words[1]) for words in said if words[:1] == ["promised"]]
    return promises[-1] if promises else first - 1


def test_killed_device_loses_no_event_and_its_will_is_heard(tmp_path: Path, broker: Broker) -> None:
    with subscriber(broker.port) as arrivals:
        last = -1
        for more in (7, 60, 33):
            # Keys that the killed device may have stored without a promise are put once only.
            last = run_and_kill(tmp_path, broker, last + 1, arrivals, more)
        arrivals.wait_for(
            lambda messages: of_type(messages, "state")[-1].body["data"]["presence"] == "offline"
        )
        with device(tmp_path, settings(broker)) as alive:
            alive.put(["end"])
            alive.wait_until_confirmed(["end"])
            assert alive.outbox.statistics().waiting <= 1
        got = arrivals.wait_for(
            lambda m: any(
                x.body["data"]["instances"] == 40 and x.id.startswith("4-")
                for x in of_type(m, "analysis")
            )
        )
    told: dict[str, int] = {
        message.id: message.body["data"]["instances"] for message in of_type(got, "analysis")
    }
    assert set(range(last + 1)) <= set(told.values())
    path = tmp_path / "ledger" / "egress.jsonl"
    assert verify(path).findings == ()
    ledgered = {entry.payload.encode() for entry in read_entries(path)}
    assert {message.payload for message in got} <= ledgered


def make_certificates(folder: Path) -> None:
    """An authority, a broker on 127.0.0.1, a device, and a stranger's authority."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "stranger"):
        subject = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *new_key, "-days", "2", *subject)
    for name in ("broker", DEVICE):
        subject = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("req", *new_key, *subject)
        (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "san")
        openssl("x509", "-req", *signer, *files)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture
def tls_broker(tmp_path: Path, certificates: Path) -> Iterator[Broker]:
    extra = (
        f"cafile {certificates / 'ca.pem'}",
        f"certfile {certificates / 'broker.pem'}",
        f"keyfile {certificates / 'broker.key'}",
        "require_certificate true",
        "use_identity_as_username true",
    )
    with running_broker(tmp_path / "broker", extra) as started:
        yield started


def own_certificate(certificates: Path, ca: str) -> TlsSettings:
    return TlsSettings(
        ca_file=certificates / ca,
        cert_file=certificates / f"{DEVICE}.pem",
        key_file=certificates / f"{DEVICE}.key",
    )


def test_events_travel_over_mutual_tls(
    tmp_path: Path, tls_broker: Broker, certificates: Path
) -> None:
    mqtt = replace(settings(tls_broker), tls=own_certificate(certificates, "ca.pem"))
    keys = [f"k{number}" for number in range(100)]
    with device(tmp_path, mqtt) as alive:
        alive.put(keys)
        alive.wait_until_confirmed(keys)


def test_broker_of_a_strange_authority_is_not_trusted(
    tls_broker: Broker, certificates: Path
) -> None:
    mqtt = replace(settings(tls_broker), tls=own_certificate(certificates, "stranger.pem"))
    with pytest.raises(BrokerUnreachableError) as failed:
        probe_broker(mqtt, DEVICE)
    assert failed.value.reason == "tls_certificate"


def test_probe_finds_the_broker_and_disturbs_no_session(tmp_path: Path, broker: Broker) -> None:
    with device(tmp_path, settings(broker)) as alive:
        alive.put(["a"])
        alive.wait_until_confirmed(["a"])
        probe_broker(settings(broker), DEVICE)
        alive.put(["b"])
        alive.wait_until_confirmed(["b"])
        assert alive.publisher.status.connections == 1


def test_broker_that_wants_a_password_refuses_a_wrong_one(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "device", "right"], check=True)
    extra = ("allow_anonymous false", f"password_file {passwords}")
    with running_broker(tmp_path / "broker", extra) as strict:
        right = replace(settings(strict), username="device", password="right")
        probe_broker(right, DEVICE)
        with pytest.raises(BrokerUnreachableError) as failed:
            probe_broker(replace(right, password="wrong"), DEVICE)
    assert failed.value.reason == "refused_0x87"
