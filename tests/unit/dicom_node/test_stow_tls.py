"""The door behind TLS; what the handshake itself must be is in test_tls."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from simulators.certificates import HOST, Authority, Identity
from simulators.memory_inbox import MemoryInbox
from simulators.stow_door import door_threads, is_storing, opened_door, uid_of
from simulators.stow_sender import CONTENT_TYPE, TOKEN, StowSender, client, multipart
from simulators.waiting import wait_until

from dicom_node.stow import StowDoor
from dicom_node.tls import ServerCertificates, ServerTls

StartDoor = Callable[..., StowDoor]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def start_door(tmp_path: Path, inbox: MemoryInbox, authority: Authority) -> Iterator[StartDoor]:
    ours = authority.issue("door")
    tls = ServerTls(
        ServerCertificates(
            certificate_file=ours.certificate_file,
            key_file=ours.key_file,
            ca_file=authority.ca_file,
            require_client_certificate=False,
        )
    )
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            opened_door(tmp_path / "spool", inbox, tls=tls, **settings)
        )


def context_of(authority: Authority, identity: Identity | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    if identity is not None:
        context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context


def post(door: StowDoor, context: ssl.SSLContext, body: bytes) -> httpx.Response:
    return httpx.post(
        f"https://{HOST}:{door.port}/dicom-web/studies",
        content=body,
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": CONTENT_TYPE},
        verify=context,
        timeout=20,
        trust_env=False,
    )


def test_instances_come_encrypted(
    start_door: StartDoor,
    inbox: MemoryInbox,
    authority: Authority,
    make_file: Callable[..., Path],
) -> None:
    paths = [make_file() for _ in range(20)]
    body = multipart([path.read_bytes() for path in paths])
    response = post(start_door(), context_of(authority), body)
    assert response.status_code == 200
    assert set(inbox.rows) == {uid_of(path) for path in paths}


def test_a_client_with_a_pinned_certificate_needs_it(
    start_door: StartDoor, authority: Authority, make_file: Callable[..., Path]
) -> None:
    right, wrong = authority.issue("sender"), authority.issue("another")
    door = start_door(clients=(client(certificate_sha256=right.sha256),))
    body = multipart([make_file().read_bytes()])
    assert post(door, context_of(authority), body).status_code == 401
    assert post(door, context_of(authority, wrong), body).status_code == 401
    assert post(door, context_of(authority, right), body).status_code == 200


def test_clear_text_is_not_answered_and_harms_nobody(
    start_door: StartDoor, authority: Authority, make_file: Callable[..., Path]
) -> None:
    door = start_door()
    body = multipart([make_file().read_bytes()])
    with StowSender(door.port) as sender:
        sender.send(b"POST /dicom-web/studies HTTP/1.1\r\nHost: door\r\n\r\n")
        heard = b""
        with contextlib.suppress(ConnectionError):
            heard = sender.socket.recv(100)
    assert b"HTTP" not in heard
    assert post(door, context_of(authority), body).status_code == 200


def test_a_handshake_that_does_not_end_is_dropped(start_door: StartDoor) -> None:
    with StowSender(start_door(head_timeout_s=0.2).port) as silent:
        assert silent.is_closed()


def test_stopping_waits_for_no_handshake(start_door: StartDoor) -> None:
    door = start_door(head_timeout_s=300.0, stop_grace_s=20.0)
    with StowSender(door.port) as silent:
        wait_until(lambda: bool(door._exchanges))
        stopping = threading.Thread(target=door.__exit__, args=(None, None, None))
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive()
        assert silent.is_closed()


def test_stopping_in_the_middle_of_a_body_never_answers_in_clear_text(
    start_door: StartDoor, authority: Authority, make_file: Callable[..., Path]
) -> None:
    door = start_door()
    body = multipart([make_file().read_bytes()])
    plain = socket.create_connection((HOST, door.port), timeout=20)
    encrypted = context_of(authority).wrap_socket(plain, server_hostname=HOST)
    with StowSender(door.port, connection=encrypted) as sender:
        lines = (
            "POST /dicom-web/studies HTTP/1.1",
            "Host: door",
            f"Authorization: Bearer {TOKEN}",
            f"Content-Type: {CONTENT_TYPE}",
            f"Content-Length: {len(body)}",
            "",
            "",
        )
        sender.send("\r\n".join(lines).encode(), body[:-100])
        wait_until(lambda: is_storing(door))
        door.__exit__(None, None, None)
        assert sender.answer().status == 503
    assert door_threads() == []
