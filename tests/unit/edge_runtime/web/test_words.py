from __future__ import annotations

from datetime import timezone
from enum import Enum

import pytest

from edge_runtime.model.clock import Mark
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.model.holding import HoldCause
from edge_runtime.model.procedure_step import ProcedureStepState
from edge_runtime.model.study import CompletionReason
from edge_runtime.store.alarms import Alarm, AlarmCode
from edge_runtime.store.processes import Role
from edge_runtime.store.worklist import DeliveryView
from edge_runtime.web import words


@pytest.mark.parametrize(
    ("table", "members"),
    [
        (words.MARK_WORDS, Mark),
        (words.COMPLETION_WORDS, CompletionReason),
        (words.CHANNEL_WORDS, Channel),
        (words.STEP_WORDS, ProcedureStepState),
        (words.ALARM_WORDS, AlarmCode),
        (words.HOLD_WORDS, HoldCause),
        (words.ROLE_WORDS, Role),
        (words.SILENT_WORDS, Role),
    ],
)
def test_every_member_of_an_enum_has_words(table: dict[Enum, str], members: type[Enum]) -> None:
    assert set(table) == set(members)
    assert all(table.values())


@pytest.mark.parametrize("code", [AlarmCode.DISK_PRESSURE, AlarmCode.RETENTION_OVERDUE])
def test_an_alarm_of_retention_says_why_studies_stay(code: AlarmCode) -> None:
    alarm = Alarm(code=code, study_key=None, subject="given_up", raised_wall_us=0)
    assert words.alarm_words(alarm).endswith("can be sent again.")


@pytest.mark.parametrize(
    ("duration_us", "said"),
    [
        (-1, "unknown (clock was set)"),
        (0, "0.00 s"),
        (440_000, "0.44 s"),
        (9_940_000, "9.9 s"),
        (42_400_000, "42 s"),
        (185_000_000, "3 min 05 s"),
        (7_500_000_000, "2 h 05 min"),
        (183_600_000_000, "2 d 3 h"),
    ],
)
def test_durations_are_said_as_a_reader_would(duration_us: int, said: str) -> None:
    assert words.duration_words(duration_us) == said


@pytest.mark.parametrize(
    ("offset_us", "said"),
    [
        (0, "0 s"),
        (412_000, "+ 0.412 s"),
        (-12_300_000, "12.300 s before"),
        (90_000_000, "+ 1 min 30 s"),
    ],
)
def test_offsets_say_on_which_side_of_the_last_image_they_lie(offset_us: int, said: str) -> None:
    assert words.offset_words(offset_us) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Abernathy^Gordon^T^Dr^Jr", "Abernathy, Gordon T"),
        ("Madonna", "Madonna"),
        ("^Only Given", "Only Given"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田, 太郎, やまだ, たろう)"),
        ("=山田^太郎", "山田, 太郎"),
        ("", ""),
        ("^^^^", ""),
    ],
)
def test_person_names_read_as_in_a_list(name: str, said: str) -> None:
    assert words.person_words(name) == said


def test_text_of_a_peer_is_clipped_and_loses_control_characters() -> None:
    assert words.clean_text("a\x00b\x1b[31m\r\nc") == "ab[31mc"
    assert len(words.clean_text("x" * 10_000)) == 96


@pytest.mark.parametrize(
    ("value", "said"),
    [("19480213", "1948-02-13"), ("1948", "1948"), ("", ""), ("1948021x", "1948021x")],
)
def test_birth_dates_are_iso_where_they_are_dates(value: str, said: str) -> None:
    assert words.date_of_birth_words(value) == said


def test_wall_times_are_told_in_the_given_zone() -> None:
    assert words.clock_words(1_760_000_000_123_456, timezone.utc) == "08:53:20"
    assert words.date_words(1_760_000_000_123_456, timezone.utc) == "2025-10-09"
    assert words.iso_words(1_760_000_000_123_456) == "2025-10-09T08:53:20.123+00:00"


@pytest.mark.parametrize(
    ("state", "attempts", "error_code", "said"),
    [
        (DeliveryState.PENDING, 0, None, "Waiting to be sent"),
        (
            DeliveryState.PENDING,
            3,
            "no_answer",
            "Not delivered yet, 3 attempts (last problem: no_answer)",
        ),
        (DeliveryState.SENT, 1, None, "Accepted by the PACS"),
        (DeliveryState.CONFIRMED, 1, None, "Delivered and confirmed"),
        (DeliveryState.DEAD, 1, "refused", "Given up after 1 attempt (last problem: refused)"),
    ],
)
def test_every_state_of_a_delivery_has_words(
    state: DeliveryState, attempts: int, error_code: str | None, said: str
) -> None:
    delivery = DeliveryView(
        channel=Channel.STRUCTURED_REPORT, state=state, attempts=attempts, error_code=error_code
    )
    assert words.delivery_words(delivery) == said


def test_telemetry_that_was_sent_waits_for_the_broker() -> None:
    delivery = DeliveryView(
        channel=Channel.TELEMETRY, state=DeliveryState.SENT, attempts=1, error_code=None
    )
    assert words.delivery_words(delivery) == "Sent, not confirmed yet"
