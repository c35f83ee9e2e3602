"""The egress guard: closed types in, CloudEvents out, everything else refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from telemetry.closed import HOUR_US
from telemetry.errors import EgressPolicyError, EgressRefusedError
from telemetry.events import AnalysisEvent, HealthEvent, TelemetryEvent, truncate_to_hour
from telemetry.guard import EgressGuard, EventClass, MessageId, Stream
from telemetry.policy import EgressPolicy, ModelRef, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkativeEvent(AnalysisEvent):
    patient_name: str = "Doe^Jane"


class TalkativeInt(int):
    def __repr__(self) -> str:
        return '"Doe^Jane"'


class TalkativeText(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("OUT_OF_SCOPE")


def test_event_becomes_a_structured_cloud_event(
    guard: EgressGuard, analysis: AnalysisEvent, message_id: MessageId
) -> None:
    message = guard.encode(analysis, message_id)
    assert message.topic == "f/v1/d41d8cd98f00/up/event"
    assert message.event_class is EventClass.EVENT
    assert json.loads(message.payload) == {
        "specversion": "1.0",
        "id": "3-q17",
        "source": "d41d8cd98f00",
        "type": "edge-triage.analysis.v1",
        "time": "2025-11-24T16:00:00Z",
        "datacontenttype": "application/json",
        "data": {
            "clock_synced": True,
            "outcome": "not_analysed",
            "reason": "MISSING_SLICES",
            "model": {"name": "head_ct_hyperdense", "version": "1.2.3"},
            "revision": 2,
            "instances": 40,
            "score": 0.07,
            "backend": "onnxruntime_cpu",
            "receive_ms": 4000,
            "wait_ms": 120,
            "analyse_ms": 310,
            "time_to_notification_ms": None,
        },
    }


def test_each_event_type_has_its_topic_and_its_class(
    guard: EgressGuard, every_event: tuple[TelemetryEvent, ...], message_id: MessageId
) -> None:
    messages = [guard.encode(event, message_id) for event in every_event]
    assert [message.topic.rpartition("/")[2] for message in messages] == [
        "event",
        "tele",
        "birth",
        "state",
    ]
    assert [message.event_class for message in messages] == [
        EventClass.EVENT,
        EventClass.TELEMETRY,
        EventClass.TELEMETRY,
        EventClass.TELEMETRY,
    ]


def test_analysis_message_is_small_enough_for_a_long_outage(
    guard: EgressGuard, analysis: AnalysisEvent, message_id: MessageId
) -> None:
    # 25,920 rows (72 h at one per 10 s) within 16 MB leave 617 bytes a row, its keys included.
    assert len(guard.encode(analysis, message_id).payload) <= 500


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hour_wall_us", 490_000 * HOUR_US + 1),
        ("hour_wall_us", -HOUR_US),
        ("clock_synced", 1),
        ("outcome", "suspected"),
        ("reason", "NOT_REGISTERED"),
        ("reason", "missing slices"),
        ("model", ModelRef(name="other", version=Version(major=1, minor=0, patch=0))),
        ("model", "head_ct_hyperdense"),
        ("revision", 0),
        ("revision", 1000),
        ("revision", True),
        ("revision", TalkativeInt(2)),
        ("instances", -1),
        ("score", 0.123),
        ("score", 1.01),
        ("score", float("nan")),
        ("score", 1),
        ("backend", "onnxruntime_cpu"),
        ("receive_ms", 10**12),
        ("wait_ms", "120"),
    ],
)
def test_field_out_of_its_shape_is_refused_by_name(
    guard: EgressGuard, analysis: AnalysisEvent, message_id: MessageId, field: str, value: Any
) -> None:
    with pytest.raises(EgressRefusedError) as refused:
        guard.encode(replace(analysis, **{field: value}), message_id)
    assert refused.value.field == f"edge-triage.analysis.v1.{field}"


def test_text_that_claims_to_equal_a_registered_code_is_refused(
    guard: EgressGuard, analysis: AnalysisEvent, message_id: MessageId
) -> None:
    with pytest.raises(EgressRefusedError):
        guard.encode(replace(analysis, reason=TalkativeText("Doe^Jane")), message_id)


def test_model_with_text_that_claims_to_equal_is_refused(
    guard: EgressGuard, analysis: AnalysisEvent, message_id: MessageId
) -> None:
    liar = ModelRef(name=TalkativeText("Doe^Jane"), version=analysis.model.version)
    with pytest.raises(EgressRefusedError):
        guard.encode(replace(analysis, model=liar), message_id)


def test_subclass_of_an_event_is_refused(
    guard: EgressGuard, analysis: AnalysisEvent, message_id: MessageId
) -> None:
    members = {name: getattr(analysis, name) for name in AnalysisEvent.__slots__}
    with pytest.raises(EgressRefusedError) as refused:
        guard.encode(TalkativeEvent(**members), message_id)
    assert refused.value.field == "event"


@pytest.mark.parametrize("event", [None, {}, "text", b"bytes", AnalysisEvent])
def test_anything_but_an_event_is_refused(
    guard: EgressGuard, message_id: MessageId, event: Any
) -> None:
    with pytest.raises(EgressRefusedError):
        guard.encode(event, message_id)


@pytest.mark.parametrize(("epoch", "seq"), [(0, 1), (1, 0), ("1", 1), (1, 2**53)])
def test_message_id_is_made_of_bounded_counters(
    guard: EgressGuard, analysis: AnalysisEvent, epoch: Any, seq: Any
) -> None:
    with pytest.raises(EgressRefusedError):
        guard.encode(analysis, MessageId(epoch=epoch, stream=Stream.QUEUED, seq=seq))


def test_too_many_items_are_refused(
    guard: EgressGuard, health: HealthEvent, message_id: MessageId
) -> None:
    with pytest.raises(EgressRefusedError) as refused:
        guard.encode(replace(health, memory=health.memory * 20), message_id)
    assert refused.value.field == "edge-triage.health.v1.memory"


def test_too_many_bytes_are_refused(health: HealthEvent, message_id: MessageId) -> None:
    guard = EgressGuard(EgressPolicy(device_id="d41d8cd98f00", max_payload_bytes=512))
    with pytest.raises(EgressRefusedError) as refused:
        guard.encode(replace(health, memory=health.memory * 16), message_id)
    assert refused.value.field == "payload"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device_id", "SHORT"),
        ("device_id", "1.2.840.10008.1.2"),
        ("device_id", "abcdefgh\n"),
        ("reason_codes", frozenset({"Doe^Jane"})),
        ("reason_codes", frozenset({"A" * 41})),
        (
            "models",
            frozenset({ModelRef(name="Doe^J", version=Version(major=1, minor=0, patch=0))}),
        ),
        (
            "models",
            frozenset({ModelRef(name="ok", version=Version(major=10**9, minor=0, patch=0))}),
        ),
        ("max_payload_bytes", 10**9),
    ],
)
def test_policy_with_an_open_word_cannot_be_made(field: str, value: Any) -> None:
    members: dict[str, Any] = {"device_id": "d41d8cd98f00", field: value}
    with pytest.raises(EgressPolicyError):
        EgressPolicy(**members)


@pytest.mark.parametrize(("text", "expected"), [("1.2.3", (1, 2, 3)), ("3.11.2+local", (3, 11, 2))])
def test_version_is_read_as_three_numbers(text: str, expected: tuple[int, int, int]) -> None:
    version = Version.parse(text)
    assert (version.major, version.minor, version.patch) == expected


@pytest.mark.parametrize("text", ["", "1.2", "1.2.840.10008", "20240131.1.1", "v1.2.3"])
def test_version_that_could_be_something_else_is_refused(text: str) -> None:
    with pytest.raises(EgressPolicyError):
        Version.parse(text)


def test_time_is_truncated_to_the_hour() -> None:
    assert truncate_to_hour(7 * HOUR_US + 59 * 60_000_000) == 7 * HOUR_US
