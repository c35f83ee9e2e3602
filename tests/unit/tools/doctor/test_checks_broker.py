from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemetry import sockets
from tools.doctor.checks_broker import (
    BROKER_REASONS,
    check_broker,
    check_certificates,
    judge_expiry,
)
from tools.doctor.findings import Context, Status

MakeContext = Callable[..., Context]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_broker_that_is_not_set_is_fine(make_context: MakeContext) -> None:
    assert check_broker(make_context()).status is Status.OK
    assert check_certificates(make_context()).status is Status.OK


def test_a_broker_that_is_down_fails_and_the_keys_are_named(
    make_context: MakeContext, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    found = check_broker(make_context(telemetry={"host": "127.0.0.1", "port": port, "tls": False}))
    assert found.status is Status.FAILED
    assert str(port) in found.found
    assert "telemetry.port" in (found.remedy or "")


def test_a_peer_that_says_nothing_fails(make_context: MakeContext, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    found = check_broker(make_context(telemetry={"host": "127.0.0.1", "port": port, "tls": False}))
    assert found.status is Status.FAILED
    assert "does not answer" in found.found


def test_a_name_that_nobody_knows_fails(make_context: MakeContext) -> None:
    found = check_broker(make_context(telemetry={"host": "no-such-broker.invalid"}))
    assert found.status is Status.FAILED
    assert "name server" in (found.remedy or "")


def test_certificates_that_are_not_there_fail(make_context: MakeContext, tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")
    context = make_context(telemetry={"host": "127.0.0.1", "ca_file": missing})
    for found in (check_certificates(context), check_broker(context)):
        assert found.status is Status.FAILED
        assert "telemetry.ca_file" in (found.remedy or "")


def test_a_file_that_is_no_certificate_fails(make_context: MakeContext, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    found = check_certificates(make_context(telemetry={"host": "127.0.0.1", "ca_file": str(file)}))
    assert found.status is Status.FAILED


@pytest.mark.parametrize(
    ("days", "status"), [(-1, Status.FAILED), (29, Status.WARNING), (31, Status.OK)]
)
def test_the_end_of_a_certificate_is_seen_coming(days: float, status: Status) -> None:
    assert judge_expiry(Path("ca.pem"), days).status is status


def test_every_way_in_which_the_network_fails_is_explained() -> None:
    assert {code for _, code in sockets._FAILURE_CODES} | {"no_answer"} <= set(BROKER_REASONS)
