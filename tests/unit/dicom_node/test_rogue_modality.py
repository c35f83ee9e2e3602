"""After whatever a peer does: the right answer, no trace of it, and the node goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from simulators.misbehaviours import (
    A_ABORT,
    ACCEPTED,
    BEFORE_AN_ASSOCIATION,
    CLOSED,
    CONTEXTS,
    ENDED,
    GOES_ON,
    IMAGE,
    RELEASED,
    SECTIONS,
    STORED,
    Misbehaviour,
)
from simulators.rogue_modality import (
    C_STORE_RSP,
    Aborted,
    Accepted,
    Answer,
    Closed,
    Rejected,
    Released,
    Response,
    RogueModality,
    abort,
    associate_request,
)
from simulators.station import Station, started
from simulators.waiting import wait_until

_ALL = [each for section in SECTIONS.values() for each in section]

StartStation = Callable[..., Station]


@pytest.fixture(params=[False, True], ids=["stock", "fast"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartStation]:
    """Starts a node for one test, on either way of receiving; keyword arguments are settings."""
    with ExitStack() as stack:

        def begin(**settings: object) -> Station:
            with_way = {"fast_path": request.param, **settings}
            return stack.enter_context(started(tmp_path / "spool", **with_way))

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


@pytest.mark.parametrize("mask", [0xFF, 0x01])
def test_request_with_any_byte_changed_is_answered_or_the_connection_ends(
    start: StartStation, mask: int
) -> None:
    station = start()
    request = associate_request(CONTEXTS, window=(1, 1))
    for at in range(0, len(request), 2):
        with RogueModality(station.port) as modality:
            changed = bytes([request[at] ^ mask])
            modality.send(request[:at] + changed + request[at + 1 :])
            modality.half_close()
            assert [*modality.answers()][-1] == Closed(), at
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
