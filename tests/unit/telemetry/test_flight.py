"""The window to the broker: pure rules."""

from __future__ import annotations

import pytest

from telemetry.flight import BackOff, Flight, Verdict, judge
from telemetry.guard import Channel, EventClass
from telemetry.outbox import OutboxRow

BACK_OFF = BackOff(minimum_s=1.0, maximum_s=60.0)


def row(number: int) -> OutboxRow:
    return OutboxRow(
        row_id=number,
        event_key=f"k{number}",
        event_class=EventClass.EVENT,
        channel=Channel.EVENT,
        payload=b"{}",
        ledger_seq=None,
    )


def send_all(flight: Flight, rows: tuple[OutboxRow, ...], now_s: float) -> None:
    for one in rows:
        flight.sent(100 + one.row_id, one, now_s)


OLDEST = (row(1), row(2), row(3))


def test_window_bounds_what_is_under_way() -> None:
    flight = Flight(window=2, back_off=BACK_OFF)
    assert flight.admit(OLDEST, 0.0) == OLDEST[:2]
    send_all(flight, OLDEST[:2], 0.0)
    assert flight.admit(OLDEST, 0.0) == ()


def test_place_is_free_only_after_the_confirmation_was_settled() -> None:
    flight = Flight(window=1, back_off=BACK_OFF)
    send_all(flight, OLDEST[:1], 0.0)
    flight.acknowledged(101, Verdict.DELIVERED, now_s=0.1, draw=0.0)
    assert flight.delivered() == OLDEST[:1]
    assert flight.admit(OLDEST, 0.2) == ()
    assert flight.is_under_way()
    flight.settle(OLDEST[:1])
    assert not flight.is_under_way()
    assert flight.admit(OLDEST[1:], 0.2) == OLDEST[1:2]


@pytest.mark.parametrize("verdict", [Verdict.REFUSED, Verdict.NOBODY_LISTENS])
def test_message_that_did_not_arrive_is_sent_again_after_the_delay(verdict: Verdict) -> None:
    flight = Flight(window=3, back_off=BACK_OFF)
    send_all(flight, OLDEST[:1], 0.0)
    flight.acknowledged(101, verdict, now_s=10.0, draw=0.5)
    assert flight.delivered() == ()
    assert not flight.is_under_way()
    assert flight.admit(OLDEST[:1], 10.7) == ()
    assert flight.admit(OLDEST[:1], 10.75) == OLDEST[:1]
    flight.sent(200, row(1), 10.75)
    flight.acknowledged(200, verdict, now_s=20.0, draw=0.5)
    assert flight.admit(OLDEST[:1], 21.4) == ()
    assert flight.admit(OLDEST[:1], 21.5) == OLDEST[:1]


def test_message_refused_for_ever_costs_one_place_only() -> None:
    flight = Flight(window=2, back_off=BACK_OFF)
    send_all(flight, OLDEST[:1], 0.0)
    flight.acknowledged(101, Verdict.REFUSED, now_s=0.0, draw=0.0)
    assert flight.admit(OLDEST, 0.1) == OLDEST[1:2]


def test_broker_that_owes_an_acknowledgement_is_noticed() -> None:
    flight = Flight(window=2, back_off=BACK_OFF)
    assert not flight.is_overdue(100.0, 30.0)
    send_all(flight, OLDEST[:1], 0.0)
    assert not flight.is_overdue(30.0, 30.0)
    assert flight.is_overdue(30.1, 30.0)
    flight.acknowledged(101, Verdict.REFUSED, now_s=31.0, draw=0.0)
    assert not flight.is_overdue(99.0, 30.0)


@pytest.mark.parametrize(
    ("code", "required", "verdict"),
    [
        (0x00, False, Verdict.DELIVERED),
        (0x00, True, Verdict.DELIVERED),
        (0x10, False, Verdict.DELIVERED),
        (0x10, True, Verdict.NOBODY_LISTENS),
        (0x80, False, Verdict.REFUSED),
        (0x87, True, Verdict.REFUSED),
    ],
)
def test_reason_code_has_one_meaning(code: int, required: bool, verdict: Verdict) -> None:
    assert judge(code, require_subscriber=required) is verdict


def test_delays_double_up_to_the_maximum_and_spread() -> None:
    assert [BACK_OFF.delay_s(n, 0.0) for n in (1, 2, 3, 7, 10_000)] == [0.5, 1.0, 2.0, 30.0, 30.0]
    assert BACK_OFF.delay_s(1, 0.999) < 1.0
