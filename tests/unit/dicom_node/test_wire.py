"""What comes past the buffer of a connection, and what comes with it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from dicom_node.wire import Wire, WireClosedError

FRAGMENT = bytes(range(256)) * 160
HEADER = b"next header!"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Wire]]:
    """The peer's end, and ours in the middle of a message."""
    peer, ours = socket.socketpair()
    with peer, ours, closing(Wire(ours, stalled_timeout_s=30.0)) as wire:
        wire.begin_message()
        yield peer, wire


def _held(wire: Wire) -> bytes:
    return bytes(wire.view[wire.start : wire.end])


def test_the_header_that_follows_a_fragment_comes_in_the_same_call(
    pair: tuple[socket.socket, Wire],
) -> None:
    peer, wire = pair
    peer.sendall(FRAGMENT + HEADER + b"more")
    target = bytearray(len(FRAGMENT))
    assert wire.receive_past(memoryview(target), ahead=len(HEADER)) == len(FRAGMENT)
    assert target == FRAGMENT
    assert _held(wire) == HEADER
    wire.require(len(HEADER) + 4)
    assert _held(wire) == HEADER + b"more"


def test_nothing_is_taken_past_the_last_fragment(pair: tuple[socket.socket, Wire]) -> None:
    peer, wire = pair
    peer.sendall(FRAGMENT + HEADER)
    assert wire.receive_past(memoryview(bytearray(len(FRAGMENT)))) == len(FRAGMENT)
    assert wire.available == 0


@pytest.mark.parametrize("came", [0, 5])
def test_peer_that_ends_where_a_header_was_due_leaves_what_it_sent(
    pair: tuple[socket.socket, Wire], came: int
) -> None:
    peer, wire = pair
    peer.sendall(FRAGMENT + HEADER[:came])
    peer.close()
    target = bytearray(len(FRAGMENT))
    assert wire.receive_past(memoryview(target), ahead=len(HEADER)) == len(FRAGMENT)
    assert _held(wire) == HEADER[:came]
    with pytest.raises(WireClosedError):
        wire.require(len(HEADER))


def test_peer_that_ends_inside_a_fragment_leaves_nothing_for_the_header(
    pair: tuple[socket.socket, Wire],
) -> None:
    peer, wire = pair
    peer.sendall(FRAGMENT[:100])
    peer.close()
    target = bytearray(len(FRAGMENT))
    assert wire.receive_past(memoryview(target), ahead=len(HEADER)) == 100
    assert wire.available == 0
