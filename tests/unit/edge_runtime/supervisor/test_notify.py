from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edge_runtime.supervisor.notify import Message, Notice, Notifier, NotifySocket


@pytest.fixture
def listening() -> Iterator[NotifySocket]:
    with NotifySocket() as opened:
        yield opened


def _notifier(address: object) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": str(address)})


def _send_raw(listening: NotifySocket, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, "\0" + listening.address[1:])


def test_notices_arrive_in_order_with_the_senders_process_id(listening: NotifySocket) -> None:
    notifier = _notifier(listening.address)
    for notice in Notice:
        notifier.send(notice)
    assert list(listening.receive()) == [
        Message(pid=os.getpid(), notice=notice) for notice in Notice
    ]
    assert list(listening.receive()) == []


def test_the_kernel_names_the_sender(listening: NotifySocket) -> None:
    code = (
        "from edge_runtime.supervisor.notify import *\nimport os\nNotifier().send(Notice.READY)\n"
        "print(os.getpid())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NOTIFY_SOCKET": str(listening.address)},
        stdout=subprocess.PIPE,
        check=True,
    )
    (message,) = listening.receive()
    assert message == Message(pid=int(done.stdout), notice=Notice.READY)


def test_unknown_words_are_passed_over(listening: NotifySocket) -> None:
    _send_raw(listening, b"STATUS=busy\nWATCHDOG=1\nMAINPID=1\nREADY=0\n\xff\xfe\n\n")
    _send_raw(listening, b"")
    _send_raw(listening, b"READY=1")
    assert [message.notice for message in listening.receive()] == [Notice.ALIVE, Notice.READY]


def test_a_message_of_many_kilobytes_is_cut_and_harms_nothing(listening: NotifySocket) -> None:
    _send_raw(listening, b"WATCHDOG=1\n" + b"x" * 50_000)
    _send_raw(listening, b"READY=1")
    assert [message.notice for message in listening.receive()] == [Notice.ALIVE, Notice.READY]


def test_an_abstract_address_as_systemd_may_give_it_is_reached() -> None:
    name = f"edge-triage-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        _notifier(f"@{name}").send(Notice.READY)
        assert receiver.recv(100) == b"READY=1"


def test_a_supervisor_that_does_not_read_blocks_nobody(listening: NotifySocket) -> None:
    notifier = _notifier(listening.address)
    for _ in range(10_000):
        notifier.send(Notice.ALIVE)
    assert 0 < len(list(listening.receive())) < 10_000
    notifier.send(Notice.STOPPING)
    assert [message.notice for message in listening.receive()] == [Notice.STOPPING]


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "@nobody", "/" + "x" * 200])
def test_without_a_supervisor_nothing_happens(address: str) -> None:
    _notifier(address).send(Notice.READY)


def test_without_the_variable_nothing_happens() -> None:
    Notifier({}).send(Notice.READY)


def test_the_socket_is_gone_afterwards() -> None:
    with NotifySocket() as opened:
        assert opened.fileno() >= 0
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        pytest.raises(ConnectionRefusedError),
    ):
        sender.sendto(b"READY=1", "\0" + opened.address[1:])
    _notifier(opened.address).send(Notice.READY)
