"""Who comes in by the door, what they may ask, and what the hostile get."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from simulators.memory_inbox import MemoryInbox
from simulators.stow_door import (
    door_threads,
    is_storing,
    opened_door,
    store,
    uid_of,
    unfinished,
)
from simulators.stow_sender import BOUNDARY, StowSender, chunked, client, head, multipart
from simulators.waiting import wait_until

from dicom_node.errors import NodeStartError, SpoolFullError
from dicom_node.reception import Caller, StoreSession
from dicom_node.scp import NodeSettings, StorageNode
from dicom_node.stow import StowDoor, StowSettings

StartDoor = Callable[..., StowDoor]
MakeFile = Callable[..., Path]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start_door(spool: Path, inbox: MemoryInbox) -> Iterator[StartDoor]:
    """Opens a door; see ``opened_door``."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(opened_door(spool, inbox, **settings))


# ---------------------------------------------------------------- who may come in


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "a-token-of-the-tests", "Bearer \xff"],
)
def test_without_a_valid_token_nothing_is_read_or_told(
    start_door: StartDoor, inbox: MemoryInbox, authorization: str
) -> None:
    door = start_door()
    for path in ("/dicom-web/studies", "/elsewhere"):
        with StowSender(door.port) as sender:
            headers = {"Authorization": authorization, "Content-Length": "1000000"}
            sender.send(head(path=path, headers=headers))
            answer = sender.answer()
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert not inbox.opened


def test_a_refusal_is_heard_by_a_sender_that_sends_without_waiting(
    start_door: StartDoor,
) -> None:
    assert store(start_door(), bytes(3 << 20), token="wrong").status == 401


def test_a_token_sent_twice_is_none(start_door: StartDoor) -> None:
    with StowSender(start_door().port) as sender:
        request = head(headers={"Content-Length": "0"})
        line = next(line for line in request.split(b"\r\n") if line.startswith(b"Authorization"))
        sender.send(request.replace(line, line + b"\r\n" + line))
        assert sender.answer().status == 401


def test_a_client_without_the_right_to_store_is_told_so(
    start_door: StartDoor, make_file: MakeFile
) -> None:
    door = start_door(clients=(client(may_store=False),))
    assert store(door, multipart([make_file().read_bytes()])).status == 403


def test_each_client_is_told_apart_by_its_token(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile
) -> None:
    door = start_door(
        clients=(client("one", ae_title="ONE"), client("two", ae_title="TWO")),
    )
    assert store(door, multipart([make_file().read_bytes()]), token="two").status == 200
    assert store(door, multipart([make_file().read_bytes()]), token="one").status == 200
    assert [calling for _, calling, _ in inbox.opened] == ["TWO", "ONE"]


# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_told_what_there_is(start_door: StartDoor, method: str) -> None:
    with StowSender(start_door().port) as sender:
        sender.send(head(method=method))
        answer = sender.answer(method)
    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")


def test_options_tells_the_methods(start_door: StartDoor) -> None:
    with StowSender(start_door().port) as sender:
        sender.send(head(method="OPTIONS"))
        answer = sender.answer()
    assert (answer.status, answer.headers["allow"]) == (200, "OPTIONS, POST")


def test_a_second_request_on_the_connection_is_never_served(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile
) -> None:
    first, second = (multipart([make_file().read_bytes()]) for _ in range(2))
    with StowSender(start_door().port) as sender:
        for body in (first, second):
            sender.send(head(headers={"Content-Length": str(len(body))}), body)
        assert sender.answer().status == 200
        assert sender.is_closed()
    assert len(inbox.rows) == 1


# ---------------------------------------------------------------- broken and hostile requests


def test_finished_parts_of_a_body_that_breaks_off_stay_and_are_told(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    path = make_file()
    whole, half = path.read_bytes(), make_file().read_bytes()[:2000]
    body = multipart([whole, half])
    body = body[: body.rindex(half) + len(half)]
    with StowSender(start_door().port) as sender:
        sender.send(head(headers={"Content-Length": str(len(body) + 10_000)}), body)
        sender.socket.shutdown(socket.SHUT_WR)
        answer = sender.answer()
    assert (answer.status, answer.stored) == (202, [uid_of(path)])
    assert answer.other_failures == [0x0110]
    assert set(inbox.rows) == {uid_of(path)}
    inbox.wait_closed()
    assert [released for _, released in inbox.closed] == [False]
    assert not unfinished(spool)


def test_a_body_that_ends_without_its_last_delimiter_is_malformed(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    body = multipart([make_file().read_bytes()])
    answer = store(start_door(), body[: -len(BOUNDARY) - 8])
    assert answer.status == 400
    assert not inbox.rows
    assert not unfinished(spool)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no multipart at all",
        multipart([]),
        multipart([b"x"], boundary="another"),
        f"--{BOUNDARY}x\r\n\r\n--{BOUNDARY}--".encode(),
        multipart([b"x"], headers=b"no header\r\n"),
        multipart([b"x"], headers=b"A: " + b"x" * 10_000 + b"\r\n"),
    ],
    ids=["empty", "text", "no part", "other", "no delimiter", "bad header", "long header"],
)
def test_a_body_that_is_no_multipart_message_is_malformed(
    start_door: StartDoor, inbox: MemoryInbox, body: bytes
) -> None:
    assert store(start_door(), body).status == 400
    assert not inbox.opened


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00" + bytes(200),
        b"GET\r\n\r\n",
        b"POST /dicom-web/studies HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["tls", "a-associate", "no version", "two lengths", "negative", "http2"],
)
def test_what_is_no_http_is_refused(start_door: StartDoor, request_bytes: bytes) -> None:
    door = start_door()
    with StowSender(door.port) as sender:
        sender.send(request_bytes)
        assert sender.answer().status in {400, 401}


def test_a_head_beyond_the_bound_is_refused(start_door: StartDoor) -> None:
    with StowSender(start_door().port) as sender:
        sender.send(head(headers={"X": "x" * 40_000}))
        assert sender.answer().status == 431


def test_broken_chunks_end_the_request(start_door: StartDoor, spool: Path) -> None:
    with StowSender(start_door().port) as sender:
        sender.send(head(headers={"Transfer-Encoding": "chunked"}), b"zz\r\n")
        assert sender.answer().status == 400
    assert not unfinished(spool)


def test_more_instances_than_the_bound_are_not_read(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile
) -> None:
    files = [make_file().read_bytes() for _ in range(3)]
    answer = store(start_door(max_parts=2), multipart(files))
    assert (answer.status, len(answer.stored), answer.other_failures) == (202, 2, [0x0110])
    assert len(inbox.rows) == 2


def test_a_request_beyond_the_bound_is_refused_before_and_while_it_is_read(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    door = start_door(max_request_bytes=10_000)
    body = multipart([make_file().read_bytes()])
    assert len(body) > 10_000
    with StowSender(door.port) as sender:
        sender.send(head(headers={"Content-Length": str(len(body))}))
        assert sender.answer().status == 413
    with StowSender(door.port) as sender:
        sender.send(head(headers={"Transfer-Encoding": "chunked"}), chunked(body))
        assert sender.answer().status == 413
    assert not inbox.opened
    assert not unfinished(spool)


def test_a_body_that_stops_is_cut_off_and_told(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    body = multipart([make_file().read_bytes()])
    with StowSender(start_door(idle_timeout_s=0.2).port) as sender:
        sender.send(head(headers={"Content-Length": str(len(body))}), body[:-5000])
        assert sender.answer().status == 408
    assert not inbox.rows
    wait_until(lambda: not unfinished(spool))


def test_a_body_that_drips_is_cut_off_and_told(start_door: StartDoor, spool: Path) -> None:
    door = start_door(rate_window_s=0.2, min_bytes_per_s=1_000_000)
    pause = threading.Event()
    with StowSender(door.port) as sender:
        sender.send(head(headers={"Content-Length": "1000000"}))
        for piece in itertools.repeat(b"x"):
            if select.select([sender.socket], [], [], 0)[0]:
                break
            sender.send(piece)
            pause.wait(0.01)
        assert sender.answer().status == 408
    assert not unfinished(spool)


def test_a_head_that_does_not_end_is_dropped(start_door: StartDoor) -> None:
    with StowSender(start_door(head_timeout_s=0.2).port) as sender:
        sender.send(head()[:-10])
        assert sender.is_closed()


def test_connections_of_one_address_that_say_nothing_are_bounded(
    start_door: StartDoor, make_file: MakeFile
) -> None:
    door = start_door(max_pending_per_address=2)
    with StowSender(door.port) as first, StowSender(door.port) as second:
        wait_until(lambda: len(door_threads()) == 3)
        with StowSender(door.port) as third:
            assert third.is_closed()
        body = multipart([make_file().read_bytes()])
        assert first.store(body).status == 200
        assert second.store(body).status == 200
    wait_until(lambda: len(door_threads()) == 1)
    assert store(door, body).status == 200


def test_all_connections_are_bounded(start_door: StartDoor) -> None:
    door = start_door(max_requests=1, max_pending_per_address=100)
    with ExitStack() as stack:
        opened = [stack.enter_context(StowSender(door.port)) for _ in range(17)]
        wait_until(lambda: len(door_threads()) == 1 + len(opened))
        with StowSender(door.port) as one_more:
            assert one_more.is_closed()


def test_requests_that_store_at_the_same_time_are_bounded(
    start_door: StartDoor, make_file: MakeFile
) -> None:
    door = start_door(max_requests=1)
    body = multipart([make_file().read_bytes()])
    with StowSender(door.port) as first:
        first.send(head(headers={"Content-Length": str(len(body))}), body[:200])
        wait_until(lambda: is_storing(door))
        busy = store(door, body)
        assert busy.status == 503
        assert int(busy.headers["retry-after"]) > 0
        first.send(body[200:])
        assert first.answer().status == 200
    assert store(door, body).status == 200


def test_a_slow_request_does_not_hold_up_another(
    start_door: StartDoor, make_file: MakeFile
) -> None:
    door = start_door()
    slow, quick = (multipart([make_file().read_bytes()]) for _ in range(2))
    with StowSender(door.port) as first:
        first.send(head(headers={"Content-Length": str(len(slow))}), slow[:20_000])
        assert store(door, quick).status == 200
        first.send(slow[20_000:])
        assert first.answer().status == 200


# ---------------------------------------------------------------- the door's own life


def test_no_descriptor_is_left_behind_by_any_request(
    start_door: StartDoor, make_file: MakeFile
) -> None:
    door = start_door()
    body = multipart([make_file().read_bytes()])
    descriptors = Path("/proc/self/fd")
    assert store(door, body).status == 200  # what the spool opens once, it keeps
    wait_until(lambda: len(door_threads()) == 1)
    gc.collect()  # of earlier tests; what it leaves to their threads may still go
    before = len(list(descriptors.iterdir()))
    for _ in range(10):
        assert store(door, body).status == 200
        assert store(door, body[:-10]).status == 400
        assert store(door, body, token="wrong").status == 401
        with StowSender(door.port) as gone:
            gone.send(head(headers={"Content-Length": str(len(body))}), body[:10_000])
    wait_until(lambda: len(door_threads()) == 1)
    assert len(list(descriptors.iterdir())) <= before


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """For a while this process can open ``count`` more."""
    free = os.dup(0)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("count", [0, 1], ids=["none to accept with", "one too few"])
def test_a_lack_of_descriptors_passes(
    start_door: StartDoor, make_file: MakeFile, count: int
) -> None:
    door = start_door()
    body = multipart([make_file().read_bytes()])
    with socket.socket() as unlucky:
        with descriptors_left(count):
            unlucky.connect(("127.0.0.1", door.port))
        assert store(door, body).status == 200


def test_a_lack_of_threads_passes(
    start_door: StartDoor, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = start_door()
    start, failures = threading.Thread.start, [RuntimeError("can't start new thread")]

    def start_or_fail(thread: threading.Thread) -> None:
        if thread.name.startswith("node-stow-") and failures:
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    with StowSender(door.port) as unlucky:
        assert unlucky.is_closed()
    assert store(door, multipart([make_file().read_bytes()])).status == 200


def test_an_index_that_fails_at_the_end_takes_nothing_back(
    start_door: StartDoor,
    inbox: MemoryInbox,
    make_file: MakeFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the index cannot be written")

    monkeypatch.setattr(inbox, "association_closed", fail)
    answer = store(start_door(), multipart([make_file().read_bytes()]))
    assert answer.status == 200
    assert len(inbox.rows) == 1


def test_a_fault_of_ours_costs_one_connection(spool: Path, inbox: MemoryInbox) -> None:
    storage = StorageNode(
        NodeSettings(ae_title="NODE", min_free_bytes=0), spool_folder=spool, inbox=inbox
    )
    faults = [RuntimeError("a bug")]

    def open_session(association_id: str, caller: Caller) -> StoreSession:
        if faults:
            raise faults.pop()
        return storage.open_session(association_id, caller)

    settings = StowSettings(port=0, clients=(client(),))
    with StowDoor(settings, open_session=open_session, check_room=lambda: None) as door:
        with StowSender(door.port) as unlucky:
            unlucky.send(head(headers={"Content-Length": "0"}))
            assert unlucky.is_closed()
        assert store(door, b"").status == 400


def test_an_idle_door_leaves_no_thread_and_frees_its_port(start_door: StartDoor) -> None:
    door = start_door()
    port = door.port
    assert door_threads() == ["node-stow"]
    door.__exit__(None, None, None)
    assert door_threads() == []
    with socket.create_server(("127.0.0.1", port)):
        pass
    with pytest.raises(RuntimeError, match="not open"):
        _ = door.port


def test_stopping_tells_a_request_in_progress_what_was_stored(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    path = make_file()
    door = start_door()
    body = multipart([path.read_bytes(), make_file().read_bytes()])
    with StowSender(door.port) as sender, StowSender(door.port) as silent:
        sender.send(head(headers={"Content-Length": str(len(body))}), body[:-100])
        wait_until(lambda: uid_of(path) in inbox.rows)
        door.__exit__(None, None, None)
        answer = sender.answer()
        assert silent.is_closed()
    assert (answer.status, answer.stored) == (202, [uid_of(path)])
    assert set(inbox.rows) == {uid_of(path)}
    assert door_threads() == []
    assert not unfinished(spool)


def test_stopping_before_anything_was_stored_says_try_again(
    start_door: StartDoor, spool: Path, make_file: MakeFile
) -> None:
    door = start_door()
    body = multipart([make_file().read_bytes()])
    with StowSender(door.port) as sender:
        sender.send(head(headers={"Content-Length": str(len(body))}), body[:-100])
        wait_until(lambda: is_storing(door))
        door.__exit__(None, None, None)
        assert sender.answer().status == 503
    assert not unfinished(spool)


def test_a_port_that_is_taken_is_an_error_that_names_the_remedy(start_door: StartDoor) -> None:
    taken = start_door().port
    with pytest.raises(NodeStartError, match=r"node\.stow\.port"):
        start_door(port=taken)


def test_a_door_to_a_failing_spool_answers_and_goes_on(
    inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    """``check_room`` is the spool's; what it raises is told as "later"."""
    storage = StorageNode(
        NodeSettings(ae_title="NODE", min_free_bytes=0), spool_folder=spool, inbox=inbox
    )
    refusals = [SpoolFullError("full")]

    def check_room() -> None:
        if refusals:
            raise refusals.pop()

    settings = StowSettings(port=0, clients=(client(),))
    with StowDoor(settings, open_session=storage.open_session, check_room=check_room) as door:
        body = multipart([make_file().read_bytes()])
        assert store(door, body).status == 503
        assert store(door, body).status == 200
