"""However images are cut into values and PDUs, all arrive; disturbed so, no wrong one does.

Structure-aware: the streams are made of values, not of bytes, so that most of them get deep.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import reduce

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulators.hand_driven_node import HandDrivenNode
from simulators.rogue_modality import (
    C_STORE_RSP,
    COMMAND,
    LAST,
    Instance,
    abort,
    associate_request,
    cancel_request,
    echo_request,
    make_instance,
    p_data,
    pdu,
    pdv,
    release_request,
    store_request,
    us,
)
from simulators.upper_layer_model import whole_data_sets

_IMAGES = [make_instance(number, pixel_bytes=size) for number, size in enumerate((2, 300, 9_000))]
# What does not belong where it is put.
_STRANGERS = (
    release_request(),
    abort(),
    associate_request(),
    pdu(4, b""),
    pdu(9, b"unknown"),
    pdu(4, bytes(50), length=0xFFFFFFFF),
    p_data(pdv(3, COMMAND | LAST, echo_request())),
    p_data(pdv(1, COMMAND | LAST, cancel_request())),
    p_data(pdv(1, COMMAND | LAST, store_request("1.2.3"))),
    p_data(pdv(1, COMMAND, b"\0\0")),
    p_data(pdv(1, 0, b"bytes")),
    p_data(pdv(1, LAST, b"")),
    p_data(pdv(3, LAST, b"bytes")),
)
_SLOW = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[HandDrivenNode]]:
    """One for each way of receiving."""
    with ExitStack() as stack:
        found = []
        for fast_path in (False, True):
            node = HandDrivenNode(folder=tmp_path_factory.mktemp("spool"), fast_path=fast_path)
            stack.callback(node.close)
            found.append(node)
        yield found


@st.composite
def _cut(draw: st.DrawFn, control: int, data: bytes) -> list[bytes]:
    """``data`` as values, some of them empty."""
    places = draw(st.lists(st.integers(0, len(data)), max_size=6).map(sorted))
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    values = [pdv(1, control, piece) for piece in pieces[:-1]]
    return [*values, pdv(1, control | LAST, pieces[-1])]


@st.composite
def _messages(draw: st.DrawFn) -> tuple[list[Instance], list[bytes]]:
    """Images in order, and their PDUs; a PDU may hold values of two messages."""
    images = draw(st.lists(st.sampled_from(_IMAGES), min_size=1, max_size=4))
    values: list[bytes] = []
    for number, image in enumerate(images, 1):
        command = store_request(image.sop_instance, message_id=number)
        values += draw(_cut(COMMAND, command)) + draw(_cut(0, image.data_set))
    pdus = []
    while values:
        count = draw(st.integers(1, 4))
        pdus.append(p_data(*values[:count]))
        del values[:count]
    return images, pdus


@_SLOW
@given(messages=_messages())
def test_images_arrive_however_they_are_cut(
    nodes: list[HandDrivenNode], messages: tuple[list[Instance], list[bytes]]
) -> None:
    images, pdus = messages
    for node in nodes:
        outcome = node.receive(b"".join(pdus))
        assert sorted(outcome.published) == sorted({each.data_set for each in images})
        assert outcome.answered.count(us(C_STORE_RSP)) >= len(images)
        assert outcome.has_ended


@st.composite
def _disturbed(draw: st.DrawFn) -> bytes:
    """A stream of PDUs of which some are lost, doubled, exchanged, strange, or cut off."""
    _, pdus = draw(_messages())
    for _ in range(draw(st.integers(1, 3))):
        here = draw(st.integers(0, len(pdus)))
        there = draw(st.integers(0, len(pdus)))
        kind = draw(st.sampled_from(("lose", "double", "exchange", "stranger", "length")))
        pdus = _with(kind, pdus, (min(here, there), max(here, there)))
        if kind == "stranger":
            pdus.insert(here, draw(st.sampled_from(_STRANGERS)))
        if kind == "length" and here < len(pdus):
            pdus[here] = _relabelled(pdus[here], draw(st.sampled_from((4, 5, 9))), draw)
    stream = reduce(bytes.__add__, pdus, b"")
    return stream[: draw(st.integers(0, len(stream)))] if draw(st.booleans()) else stream


def _with(kind: str, pdus: list[bytes], places: tuple[int, int]) -> list[bytes]:
    begin, end = places
    if kind == "lose":
        return pdus[:begin] + pdus[begin + 1 :]
    if kind == "double":
        return pdus[:end] + pdus[begin : begin + 1] + pdus[end:]
    if kind == "exchange":
        return pdus[:begin] + pdus[end : end + 1] + pdus[begin:end] + pdus[end + 1 :]
    return list(pdus)


def _relabelled(one: bytes, at: int, draw: st.DrawFn) -> bytes:
    """The PDU with one byte of its lengths changed."""
    return one[:at] + bytes([draw(st.integers(0, 255))]) + one[at + 1 :]


@_SLOW
@given(stream=_disturbed())
def test_disturbed_stream_publishes_only_what_came_whole(
    nodes: list[HandDrivenNode], stream: bytes
) -> None:
    allowed = whole_data_sets(stream)
    for node in nodes:
        outcome = node.receive(stream)
        assert set(outcome.published) <= set(allowed)
        assert outcome.has_ended
