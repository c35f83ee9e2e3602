from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.archive import FolderArchive
from edge_runtime.clock import SystemClock
from edge_runtime.process import RoleLock
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role, record_beat
from tools.demo.ports import free_port
from tools.doctor.checks_ports import (
    asked_for,
    check_node_port,
    check_node_tls_port,
    check_web_port,
)
from tools.doctor.checks_store import check_processes
from tools.doctor.findings import Context, Status

MakeContext = Callable[..., Context]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield int(holder.getsockname()[1])


@contextlib.contextmanager
def running(state_dir: Path, role: Role) -> Iterator[None]:
    """What a process of the device shows of itself: its lock and its row."""
    connection = connect(state_dir / "triage.db")
    with contextlib.closing(connection), RoleLock(state_dir, role.value):
        record_beat(
            connection,
            role,
            pid=os.getpid(),
            started_wall_us=1,
            rss_bytes=1,
            peak_rss_bytes=1,
            at=SystemClock().now(),
        )
        yield


def test_free_ports_are_fine(make_context: MakeContext) -> None:
    assert check_node_port(make_context()).status is Status.OK
    assert check_web_port(make_context()).status is Status.OK


def test_a_device_that_starts_while_the_doctor_asks_gets_its_port() -> None:
    port = free_port()
    with asked_for("127.0.0.1", port):
        socket.create_server(("127.0.0.1", port)).close()


_TLS = {"certificate_file": "a", "key_file": "b", "ca_file": "c"}


def test_the_port_for_tls_is_judged_where_there_is_one(
    make_context: MakeContext, taken_port: int, state_dir: Path
) -> None:
    assert check_node_tls_port(make_context()).found == "there is no port for TLS (node.tls)"
    taken = make_context(node={"tls": {**_TLS, "port": taken_port}})
    found = check_node_tls_port(taken)
    assert found.status is Status.FAILED
    assert "node.tls.port" in (found.remedy or "")
    with running(state_dir, Role.NODE):
        assert check_node_tls_port(taken).status is Status.OK


def test_a_node_without_clear_text_needs_no_such_port(
    make_context: MakeContext, taken_port: int
) -> None:
    context = make_context(node={"port": taken_port, "tls": {**_TLS, "only": True}})
    assert check_node_port(context).status is Status.OK


def test_a_port_of_another_program_fails_and_key_and_port_are_named(
    make_context: MakeContext, taken_port: int
) -> None:
    node = check_node_port(make_context(node={"port": taken_port}))
    web = check_web_port(make_context(web={"port": taken_port}))
    for found, key in ((node, "node.port"), (web, "web.port")):
        assert found.status is Status.FAILED
        assert str(taken_port) in found.found
        assert key in (found.remedy or "")


def test_a_row_without_the_lock_does_not_make_the_port_ours(
    make_context: MakeContext, state_dir: Path, taken_port: int
) -> None:
    with running(state_dir, Role.NODE):
        pass
    assert check_node_port(make_context(node={"port": taken_port})).status is Status.FAILED


def test_an_address_that_is_not_this_machine_s_fails(make_context: MakeContext) -> None:
    found = check_node_port(make_context(node={"bind": "192.0.2.1"}))
    assert found.status is Status.FAILED
    assert "node.bind" in (found.remedy or "")


def test_our_own_node_is_asked_and_is_fine(
    make_context: MakeContext, state_dir: Path, tmp_path: Path
) -> None:
    with running(state_dir, Role.NODE), FolderArchive(tmp_path, ae_title="EDGETRIAGE") as node:
        found = check_node_port(make_context(node={"port": node.port}))
    assert found.status is Status.OK
    assert "answers C-ECHO" in found.found


def test_our_own_node_that_lets_only_others_in_is_fine(
    make_context: MakeContext, state_dir: Path, tmp_path: Path
) -> None:
    with running(state_dir, Role.NODE), FolderArchive(tmp_path, ae_title="OTHER") as node:
        found = check_node_port(make_context(node={"port": node.port}))
    assert found.status is Status.OK
    assert "node.callers" in found.found


def test_our_own_process_that_holds_its_port_in_silence_fails(
    make_context: MakeContext, state_dir: Path, taken_port: int
) -> None:
    with running(state_dir, Role.NODE):
        found = check_node_port(make_context(node={"port": taken_port}))
    assert found.status is Status.FAILED
    assert "restart" in (found.remedy or "")
    with running(state_dir, Role.WEB):
        found = check_web_port(make_context(web={"port": taken_port}))
    assert found.status is Status.FAILED
    assert "does not answer" in found.found


def test_a_process_that_runs_on_another_port_is_a_warning(
    make_context: MakeContext, state_dir: Path
) -> None:
    with running(state_dir, Role.NODE):
        found = check_node_port(make_context())
    assert found.status is Status.WARNING
    assert "node.port" in (found.remedy or "")


def test_a_device_with_a_process_missing_fails_and_names_it(
    make_context: MakeContext, state_dir: Path
) -> None:
    assert check_processes(make_context()).status is Status.OK
    with contextlib.ExitStack() as stack:
        for role in (Role.NODE, Role.COURIER, Role.WEB):
            stack.enter_context(running(state_dir, role))
        found = check_processes(make_context())
        assert found.status is Status.FAILED
        assert "worker" in found.found
        stack.enter_context(running(state_dir, Role.WORKER))
        assert check_processes(make_context()).status is Status.OK


def test_a_process_that_starts_is_waited_for(make_context: MakeContext, state_dir: Path) -> None:
    """It has its lock, and says that it lives only when it is ready."""
    with contextlib.ExitStack() as stack:
        for role in (Role.NODE, Role.COURIER, Role.WEB):
            stack.enter_context(running(state_dir, role))
        stack.enter_context(RoleLock(state_dir, Role.WORKER.value))
        found = check_processes(make_context())
    assert found.status is Status.WARNING
    assert "not ready yet: worker" in found.found
