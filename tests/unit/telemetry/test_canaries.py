"""Identities planted wherever an event takes a value: none leaves, none reaches an error text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from telemetry.errors import EgressPolicyError, EgressRefusedError, EventKeyError
from telemetry.events import AnalysisEvent, TelemetryEvent
from telemetry.guard import EgressGuard, MessageId
from telemetry.outbox import Outbox, OutboxItem
from telemetry.policy import EgressPolicy, ModelRef, Version

IDENTITIES = (
    "CANARY^JANE",
    "MRN-0042-CANARY",
    "1.2.826.0.1.3680043.8.498.4242",
    "19700131",
    "1970-01-31T10:11:12",
    "/spool/CANARY_JANE/IM0001.dcm",
    "KeyError: 'CANARY^JANE'",
    "HEAD CT FOR JANE CANARY",
)
DISGUISES: tuple[Any, ...] = tuple(
    form
    for text in IDENTITIES
    for form in (
        text,
        text.encode(),
        text.lower(),
        hashlib.md5(text.encode()).hexdigest(),
        hashlib.sha256(text.encode()).hexdigest(),
        base64.b64encode(text.encode()).decode(),
        text.encode().hex(),
        (text,),
        {text: text},
        text.replace("^", "_").upper().replace(".", "_"),
    )
)


def plant(value: Any, canary: Any) -> Iterator[Any]:
    """Yield every copy of an event with the canary in one place."""
    for field in fields(value):
        inner = getattr(value, field.name)
        yield replace(value, **{field.name: canary})
        if is_dataclass(inner):
            yield from (replace(value, **{field.name: it}) for it in plant(inner, canary))
        if isinstance(inner, tuple):
            yield replace(value, **{field.name: (canary,)})
            for item in inner:
                if is_dataclass(item):
                    yield from (replace(value, **{field.name: (it,)}) for it in plant(item, canary))


def test_canary_in_any_place_of_any_event_is_refused_without_being_named(
    guard: EgressGuard, every_event: tuple[TelemetryEvent, ...], message_id: MessageId
) -> None:
    tried = 0
    for event in every_event:
        for canary in DISGUISES:
            for planted in plant(event, canary):
                with pytest.raises(EgressRefusedError) as refused:
                    guard.encode(planted, message_id)
                assert str(canary) not in str(refused.value)
                tried += 1
    assert tried > 2000


def test_canary_in_a_message_id_is_refused(
    guard: EgressGuard, analysis: AnalysisEvent, message_id: MessageId
) -> None:
    for canary in DISGUISES:
        for planted in plant(message_id, canary):
            with pytest.raises(EgressRefusedError):
                guard.encode(analysis, planted)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_identity_is_no_word_of_a_policy(identity: str) -> None:
    version = Version(major=1, minor=0, patch=0)
    for members in (
        {"device_id": identity},
        {"reason_codes": frozenset({identity})},
        {"models": frozenset({ModelRef(name=identity, version=version)})},
    ):
        everything: dict[str, Any] = {"device_id": "d41d8cd98f00", **members}
        if identity == "19700131" and "device_id" in members:
            continue  # eight digits can be an opaque id: provisioning makes it, not a study
        with pytest.raises(EgressPolicyError) as refused:
            EgressPolicy(**everything)
        assert identity not in str(refused.value)


@pytest.mark.parametrize("identity", [text for text in IDENTITIES if text != "19700131"])
def test_identity_is_no_event_key(outbox: Outbox, analysis: AnalysisEvent, identity: str) -> None:
    with pytest.raises(EventKeyError) as refused:
        outbox.put([OutboxItem(event_key=identity, event=analysis)])
    assert identity not in str(refused.value)


def test_event_key_never_leaves(outbox: Outbox, analysis: AnalysisEvent) -> None:
    outbox.put([OutboxItem(event_key="canary-key-19700131", event=analysis)])
    assert b"canary" not in outbox.oldest(1)[0].payload


def test_refused_event_leaves_no_trace_on_disk(
    tmp_path: Path, guard: EgressGuard, analysis: AnalysisEvent
) -> None:
    path = tmp_path / "outbox.db"
    canary: Any = "CANARY^JANE"
    with Outbox(path, guard=guard) as outbox, pytest.raises(EgressRefusedError):
        outbox.put(
            [
                OutboxItem(event_key="good", event=analysis),
                OutboxItem(event_key="bad", event=replace(analysis, reason=canary)),
            ]
        )
    for file in tmp_path.iterdir():
        assert b"CANARY" not in file.read_bytes()
