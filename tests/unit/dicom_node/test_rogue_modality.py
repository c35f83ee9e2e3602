"""After whatever a peer does: the right answer, no trace of it, and the node goes on."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from simulators.memory_inbox import MemoryInbox
from simulators.misbehaviours import (
    A_ABORT,
    ACCEPTED,
    BEFORE_AN_ASSOCIATION,
    CLOSED,
    CONTEXTS,
    ENDED,
    GOES_ON,
    IMAGE,
    NOT_UNDERSTOOD,
    RELEASED,
    SECTIONS,
    STORED,
    Misbehaviour,
)
from simulators.rogue_modality import (
    C_STORE_RSP,
    COMMAND,
    CT,
    EXPLICIT,
    LAST,
    P_DATA_TF,
    VERIFICATION,
    Aborted,
    Accepted,
    Answer,
    Closed,
    Instance,
    Proposed,
    Rejected,
    Released,
    Response,
    RogueModality,
    abort,
    associate_request,
    cancel_request,
    echo_request,
    make_instance,
    p_data,
    pdu,
    pdv,
    store_request,
)
from simulators.waiting import wait_until

from dicom_node.file_meta import read_file_meta
from dicom_node.scp import NodeSettings, StorageNode

_ALL = [each for section in SECTIONS.values() for each in section]
_SETTINGS = {
    "ae_title": "NODE",
    "bind_address": "127.0.0.1",
    "port": 0,
    "admit_unknown_peers": True,
    "min_free_bytes": 0,
}
_numbers = count(1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A node, and how to see that nothing is wrong with it."""

    node: StorageNode
    inbox: MemoryInbox
    threads_before: frozenset[threading.Thread]

    @property
    def port(self) -> int:
        return self.node.port

    def stored(self) -> list[bytes]:
        """The data sets of the published files, each of which has a row that points to it."""
        paths = sorted(self.node.spool.iter_files())
        assert paths == sorted(row.path for row in self.inbox.rows.values())
        return [_data_set(self.node.spool.absolute(path)) for path in paths]

    def forget(self) -> None:
        """Remove what is stored, as a device does that has delivered it."""
        for row in self.inbox.rows.values():
            self.node.spool.remove(row.path)
        self.inbox.rows.clear()

    def is_idle(self) -> bool:
        """Whether no association is left, and nothing of one."""
        alive = set(threading.enumerate()) - self.threads_before
        return not alive and not any((self.node.spool.root / "incoming").iterdir())

    def check_sound(self, *expected: Instance) -> None:
        """Nothing but ``expected`` is stored, nothing is left over, and the node works."""
        wait_until(self.is_idle)
        assert sorted(self.stored()) == sorted({each.data_set for each in expected})
        with RogueModality(self.port) as modality:
            modality.associate()
            assert modality.store(make_instance(next(_numbers))) == 0
            assert isinstance(modality.release(), Released)
        assert len(self.inbox.rows) == len({each.data_set for each in expected}) + 1
        self.forget()


def _data_set(path: Path) -> bytes:
    with path.open("rb") as stream:
        offset = read_file_meta(stream.fileno()).data_set_offset
    return path.read_bytes()[offset:]


StartStation = Callable[..., Station]


@pytest.fixture(params=[False, True], ids=["stock", "fast"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartStation]:
    """Starts a node for one test, on either way of receiving; keyword arguments are settings."""
    with ExitStack() as stack:

        def begin(**settings: object) -> Station:
            given: dict[str, Any] = {**_SETTINGS, "fast_path": request.param, **settings}
            inbox = MemoryInbox()
            node = StorageNode(
                NodeSettings(**given),
                spool_folder=tmp_path / "spool",
                inbox=inbox,
            )
            stack.enter_context(node)
            before = frozenset(threading.enumerate())
            return Station(node=node, inbox=inbox, threads_before=before)

        yield begin


def _name(answer: Answer) -> str:
    match answer:
        case Response(command_field=field, status=status):
            assert field == C_STORE_RSP, f"{field:04X}"
            return f"{status:04X}"
        case Aborted():
            return A_ABORT
        case Released():
            return RELEASED
        case Accepted():
            return ACCEPTED
        case Rejected(result=result, source=source, reason=reason):
            return f"A-ASSOCIATE-RJ {result}/{source}/{reason}"
        case Closed():
            return CLOSED


def _answers_to(case: Misbehaviour, modality: RogueModality) -> list[str]:
    """What the node answers, up to an A-ABORT; what it refused before that says nothing more."""
    modality.send(case.sent)
    if case.answers[-1] not in (A_ABORT, CLOSED, ENDED):
        got = [_name(modality.answer()) for answer in case.answers if answer != GOES_ON]
        return [*got, *_use(case, modality)]
    got = []
    for answer in modality.answers():
        got.append(_name(answer))
        if isinstance(answer, (Aborted, Closed)):
            break
    return [ENDED] if case.answers == (ENDED,) and STORED not in got else _without_refusals(got)


def _use(case: Misbehaviour, modality: RogueModality) -> list[str]:
    """Use the association in order, if it is to go on."""
    if case.answers[-1] != GOES_ON:
        return []
    echo = modality.echo()
    assert isinstance(echo, Response), echo
    assert (echo.message_id, echo.status) == (7, 0)
    assert isinstance(modality.release(), Released)
    return [GOES_ON]


def _without_refusals(answers: list[str]) -> list[str]:
    return [each for each in answers if each in (STORED, A_ABORT, CLOSED)]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_misbehaviour_is_answered_as_the_table_says_and_leaves_nothing_behind(
    start: StartStation, section: str
) -> None:
    station = start()
    wrong = []
    for case in SECTIONS[section]:
        with RogueModality(station.port, deadline_s=3) as modality:
            if case not in BEFORE_AN_ASSOCIATION:
                modality.associate(*CONTEXTS)
            try:
                got = _answers_to(case, modality)
            except TimeoutError:
                got = ["silence"]
        if got != list(case.answers):
            wrong.append((case.what, got))
        wait_until(station.is_idle)
        if sorted(station.stored()) != sorted(each.data_set for each in case.stores):
            wrong.append((case.what, ["other instances are stored"]))
        station.forget()
    assert not wrong, "\n".join(f"{what}: {got}" for what, got in wrong)
    station.check_sound()


def test_every_row_of_the_table_has_words_of_its_own() -> None:
    words = [each.what for each in _ALL]
    assert len(set(words)) == len(words)


# ---------------------------------------------------------------- broken connections


def _cuts(message: Sequence[bytes]) -> list[int]:
    """Byte positions around every boundary: PDU header, value header, first and last bytes."""
    cuts, at = {0}, 0
    for each in message:
        cuts.update(at + offset for offset in (1, 5, 6, 7, 10, 11, 12, 13, len(each) // 2))
        at += len(each)
        cuts.update((at - 1, at))
    # So far from the end that an A-ABORT in place of the rest cannot complete the message.
    return sorted(cut for cut in cuts if cut < at - len(abort()))


@pytest.mark.parametrize("ending", ["FIN", "RST", "A-ABORT"])
def test_connection_that_breaks_at_any_byte_leaves_nothing(
    start: StartStation, ending: str
) -> None:
    station = start()
    message = IMAGE.message(size=1200)
    whole = b"".join(message)
    for cut in _cuts(message):
        with RogueModality(station.port) as modality:
            modality.associate()
            modality.send(whole[:cut])
            if ending == "RST":
                modality.reset()
                continue
            if ending == "A-ABORT":
                # In the middle of a PDU it is a part of that PDU, and then the bytes end.
                modality.send(abort())
            modality.half_close()
            assert all(isinstance(each, (Closed, Aborted)) for each in modality.answers()), cut
    wait_until(station.is_idle)
    station.check_sound()


@pytest.mark.parametrize("cut", [1, 5, 6, 40, 74, 80, 150])
def test_request_that_breaks_off_is_forgotten(start: StartStation, cut: int) -> None:
    station = start()
    with RogueModality(station.port) as modality:
        modality.send(associate_request()[:cut])
        modality.half_close()
        assert [*modality.answers()][-1] == Closed()
    station.check_sound()


def test_whole_instance_before_the_end_of_the_connection_is_stored_or_not_but_never_half(
    start: StartStation,
) -> None:
    station = start()
    for _ in range(20):
        with RogueModality(station.port) as modality:
            modality.associate()
            modality.send(*IMAGE.message())
            modality.reset()
    wait_until(station.is_idle)
    assert station.stored() in ([], [IMAGE.data_set])
    station.forget()
    station.check_sound()


# ---------------------------------------------------------------- time


def test_peer_that_connects_and_sends_nothing_is_cut_off(start: StartStation) -> None:
    station = start(association_timeout_s=0.3)
    with RogueModality(station.port) as modality:
        assert [*modality.answers()][-1] == Closed()
    station.check_sound()


@pytest.mark.parametrize("sent", [b"\x01", associate_request()[:50]])
def test_peer_that_stops_in_its_request_is_cut_off(start: StartStation, sent: bytes) -> None:
    station = start(association_timeout_s=0.5, stalled_timeout_s=0.5)
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


def test_peer_that_idles_longer_than_allowed_is_ended_and_its_half_image_dropped(
    start: StartStation,
) -> None:
    """Scanners keep associations open; only ``idle_timeout_s`` ends one (an hour by default)."""
    assert NodeSettings(ae_title="NODE").idle_timeout_s == 3600
    station = start(idle_timeout_s=0.5, stalled_timeout_s=0.5)
    with RogueModality(station.port) as modality:
        modality.associate()
        modality.send(*IMAGE.message(size=500)[:3])
        assert [*modality.answers()][-1] == Closed()
    station.check_sound()


def test_peer_that_idles_within_its_time_can_go_on(start: StartStation) -> None:
    station = start(idle_timeout_s=60.0, stalled_timeout_s=0.2)
    with RogueModality(station.port) as modality:
        modality.associate()
        threading.Event().wait(0.5)  # longer than a stall, which is about unfinished PDUs only
        assert modality.store(IMAGE) == 0
        threading.Event().wait(0.5)
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
        assert _name(modality.answer()) in (NOT_UNDERSTOOD, A_ABORT)
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
            assert answer.status == 0, STORED
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
