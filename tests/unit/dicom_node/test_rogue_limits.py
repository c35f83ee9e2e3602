"""Peers that are slow, silent, many or endless: each bound holds, and nobody else notices."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from simulators.misbehaviours import (
    IMAGE,
)
from simulators.rogue_modality import (
    COMMAND,
    CT,
    EXPLICIT,
    LAST,
    P_DATA_TF,
    VERIFICATION,
    Aborted,
    Accepted,
    Closed,
    Proposed,
    Response,
    RogueModality,
    associate_request,
    cancel_request,
    echo_request,
    make_instance,
    p_data,
    pdu,
    pdv,
    store_request,
)
from simulators.station import Station, started
from simulators.waiting import wait_until

from dicom_node.scp import NodeSettings
from dicom_node.status import StoreStatus

StartStation = Callable[..., Station]


@pytest.fixture(params=[False, True], ids=["stock", "fast"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartStation]:
    """Starts a node for one test, on either way of receiving; keyword arguments are settings."""
    with ExitStack() as stack:

        def begin(**settings: object) -> Station:
            with_way = {"fast_path": request.param, **settings}
            return stack.enter_context(started(tmp_path / "spool", **with_way))

        yield begin


# ---------------------------------------------------------------- time


def test_peer_that_connects_and_sends_nothing_is_cut_off(start: StartStation) -> None:
    station = start(association_timeout_s=1.0)
    with RogueModality(station.port) as modality:
        assert [*modality.answers()][-1] == Closed()
    station.check_sound()


@pytest.mark.parametrize("sent", [b"\x01", associate_request()[:50]])
def test_peer_that_stops_in_its_request_is_cut_off(start: StartStation, sent: bytes) -> None:
    station = start(association_timeout_s=1.0, stalled_timeout_s=0.5)
    with RogueModality(station.port) as modality:
        modality.send(sent)
        assert [*modality.answers()][-1] == Closed()
    station.check_sound()


@pytest.mark.parametrize("size", [3, 9, 60, 1000])
def test_peer_that_stops_in_a_pdu_is_cut_off(start: StartStation, size: int) -> None:
    station = start(stalled_timeout_s=0.5)
    message = b"".join(IMAGE.message())
    with RogueModality(station.port) as modality:
        modality.associate()
        modality.send(message[:size])
        assert [*modality.answers()][-1] == Closed()
    station.check_sound()


@pytest.mark.parametrize("in_association", [False, True])
def test_peer_that_drips_is_cut_off_while_it_drips(
    start: StartStation, in_association: bool
) -> None:
    """It never stops: a byte comes every twentieth of a second, within a PDU of 300."""
    station = start(stalled_timeout_s=0.5, association_timeout_s=1.0)
    with RogueModality(station.port) as modality:
        if in_association:
            modality.associate()
        modality.send(pdu(P_DATA_TF if in_association else 1, b"", length=300))
        modality.set_deadline(0.05)

        def is_ended() -> bool:
            modality.send(b"\0")
            try:
                return isinstance(modality.answer(), Closed)
            except TimeoutError:
                return False

        wait_until(is_ended)
    station.check_sound()


def test_peer_that_idles_longer_than_allowed_is_ended_and_its_half_image_dropped(
    start: StartStation,
) -> None:
    """Scanners keep associations open; only ``idle_timeout_s`` ends one (an hour by default)."""
    assert NodeSettings(ae_title="NODE").idle_timeout_s == 3600
    # Long enough for `check_sound` on a machine that has other things to do.
    station = start(idle_timeout_s=2.0, stalled_timeout_s=0.5)
    with RogueModality(station.port) as modality:
        modality.associate()
        modality.send(*IMAGE.message(size=500)[:3])
        assert [*modality.answers()][-1] == Closed()
    station.check_sound()


def test_peer_that_idles_within_its_time_can_go_on(start: StartStation) -> None:
    station = start(idle_timeout_s=60.0, stalled_timeout_s=1.0)
    with RogueModality(station.port) as modality:
        modality.associate()
        assert modality.store(IMAGE) == 0
        threading.Event().wait(1.5)  # longer than a stall, which is about unfinished PDUs only
        assert modality.store(IMAGE) == 0
        modality.release()
    station.check_sound(IMAGE)


# ---------------------------------------------------------------- numbers


def test_many_stores_without_waiting_are_answered_in_order_or_ended(start: StartStation) -> None:
    """The window of operations is 1 (PS3.7 D.3.3.3); some more is forgiven, no end of it is not."""
    station = start()
    images = [make_instance(number) for number in range(1, 41)]
    with RogueModality(station.port) as modality:
        proposal = associate_request(window=(0, 0))
        modality.send(proposal)
        accepted = modality.answer()
        assert isinstance(accepted, Accepted)
        assert accepted.window in (None, (1, 1))
        for number, image in enumerate(images, 1):
            modality.send(*image.message(message_id=number))
        got = []
        while isinstance(answer := modality.answer(), Response):
            got.append((answer.message_id, answer.status))
            if len(got) == len(images):
                break
    assert got == [(number, 0) for number in range(1, len(got) + 1)]
    wait_until(station.is_idle)
    stored = station.stored()
    assert len(stored) >= len(got)
    assert set(stored) <= {each.data_set for each in images}
    station.forget()
    station.check_sound()


@pytest.mark.parametrize("command", [echo_request(), cancel_request(), store_request("1.2.3")])
def test_flood_of_commands_is_answered_or_ended(start: StartStation, command: bytes) -> None:
    station = start()
    context = 3 if command == echo_request() else 1
    with RogueModality(station.port) as modality:
        modality.associate()
        modality.send(p_data(pdv(context, COMMAND | LAST, command)) * 500)
        modality.half_close()
        assert [*modality.answers()][-1] == Closed()
    station.check_sound()


def test_association_with_128_contexts_stores_on_the_last(start: StartStation) -> None:
    station = start()
    syntaxes = (*(f"1.2.3.{number}" for number in range(39)), EXPLICIT)
    proposed = [Proposed(number=number, transfer_syntaxes=syntaxes) for number in range(1, 256, 2)]
    with RogueModality(station.port) as modality:
        accepted = modality.associate(*proposed)
        assert accepted.contexts == dict.fromkeys(range(1, 256, 2), EXPLICIT)
        assert modality.store(IMAGE, context=255) == 0
        modality.release()
    station.check_sound(IMAGE)


@pytest.mark.parametrize("uid", [b"1." * 32 + b"1", b"1" * 65, b"1" * 5000])
def test_uid_that_is_too_long_is_refused(start: StartStation, uid: bytes) -> None:
    station = start()
    with RogueModality(station.port) as modality:
        modality.associate()
        modality.send(p_data(pdv(1, 3, store_request(uid)), pdv(1, 2, IMAGE.data_set)))
        answer = modality.answer()
        assert isinstance(answer, Aborted) or (
            isinstance(answer, Response) and answer.status == StoreStatus.CANNOT_UNDERSTAND
        )
    station.check_sound()


def test_at_most_so_many_connections_of_an_address_may_wait_for_their_request(
    start: StartStation,
) -> None:
    """Connections are accepted one after the other: the fourth finds three."""
    station = start(max_pending_per_address=3)
    with ExitStack() as stack:
        waiting = [stack.enter_context(RogueModality(station.port)) for _ in range(3)]
        with RogueModality(station.port) as one_more:
            assert one_more.answer() == Closed()
        waiting[0].associate()
        with RogueModality(station.port) as another:
            another.associate()
            assert another.store(IMAGE) == 0
    station.check_sound(IMAGE)


def test_echo_is_answered_while_25_associations_store(
    start: StartStation, record_property: Callable[[str, object], None]
) -> None:
    """Each store is half sent and stays so: an echo that came after one would never come."""
    station = start(max_associations=32)
    images = [make_instance(number, pixel_bytes=60_000) for number in range(1, 26)]
    halves = [image.message(size=8_000) for image in images]
    with ExitStack() as stack:
        storing = []
        for message in halves:
            modality = stack.enter_context(RogueModality(station.port))
            modality.associate()
            modality.send(*message[:4])
            storing.append(modality)
        times_ms = []
        for message_id in range(1, 21):
            with RogueModality(station.port) as caller:
                began = time.perf_counter()
                caller.associate(Proposed(abstract_syntax=VERIFICATION))
                answer = caller.echo(context=1, message_id=message_id)
                times_ms.append(1000 * (time.perf_counter() - began))
                assert isinstance(answer, Response)
                caller.release()
        assert station.stored() == []
        for modality, message in zip(storing, halves, strict=True):
            modality.send(*message[4:])
        statuses = [modality.answer() for modality in storing]
        for modality in storing:
            modality.release()
    assert all(isinstance(each, Response) and each.status == 0 for each in statuses)
    record_property("longest_echo_ms", max(times_ms))
    print(f"connect, associate and echo: at most {max(times_ms):.1f} ms")  # noqa: T201  a measure
    station.check_sound(*images)


# ---------------------------------------------------------------- memory


def _peak_bytes(action: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "sent",
    [
        pdu(P_DATA_TF, bytes(100), length=0xFFFFFFFF),
        p_data(pdv(1, COMMAND, bytes(60_000))) * 40,
        p_data(pdv(1, 0, bytes(60_000))) * 40,
        p_data(pdv(1, COMMAND | LAST, store_request("1.2.3", data_set_type=0x0101))) * 5_000,
        p_data(pdv(1, COMMAND, b"")) * 50_000,
    ],
    ids=["declared length", "command", "data without command", "requests", "empty values"],
)
def test_memory_is_bounded_whatever_is_sent(start: StartStation, sent: bytes) -> None:
    station = start()

    def play() -> None:
        with RogueModality(station.port) as modality:
            modality.associate()
            modality.send(sent)
            modality.half_close()
            assert [*modality.answers()][-1] == Closed()
        wait_until(station.is_idle)

    assert _peak_bytes(play) < 8 << 20
    station.check_sound()


def test_instance_on_its_way_does_not_stand_in_memory(start: StartStation) -> None:
    station = start()
    image = make_instance(1, pixel_bytes=32 << 20)
    message = image.message(size=128 * 1024 - 6)

    def play() -> None:
        with RogueModality(station.port) as modality:
            modality.associate()
            modality.send(*message)
            answer = modality.answer()
            assert isinstance(answer, Response)
            assert answer.status == 0
            modality.release()

    assert _peak_bytes(play) < 8 << 20
    station.check_sound(image)


def test_class_that_is_no_uid_cannot_be_proposed_into_a_path(
    start: StartStation, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    station = start()
    with RogueModality(station.port) as modality:
        modality.send(associate_request([Proposed(abstract_syntax="../../x")], calling=b"../../y"))
        accepted = modality.answer()
        assert isinstance(accepted, Accepted)
        assert accepted.contexts[1] is None
    station.check_sound()
    spool = tmp_path / "spool"
    outside = [each for each in tmp_path.rglob("*") if spool not in (each, *each.parents)]
    assert sorted(outside) == before
    assert CT not in repr(sorted(tmp_path.rglob("*")))
