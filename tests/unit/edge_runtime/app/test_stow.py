"""The second door of a device: off unless asked for, and then the same as the first."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from simulators.ct_slices import write_ct_slice
from simulators.lone_node import LoneNode
from simulators.stow_sender import (
    BOUNDARY,
    PART_HEADERS,
    StowSender,
    digest_of,
    head,
    multipart,
)

from dicom_node.scu import send_files
from edge_runtime.config.loading import parse_settings
from edge_runtime.config.node_settings import NodeSettings
from edge_runtime.config.settings import Settings
from edge_runtime.errors import SettingsError
from tools.demo.ports import free_port

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "WEBCLIENT"
CLIENT = {"name": NAME, "token_sha256": digest_of("a-token-of-the-tests")}
_MIB = 1 << 20


def settings_text(port: int) -> str:
    return f"""
[node.stow]
enabled = true
port = {port}
[[node.stow.clients]]
name = "{NAME}"
token_sha256 = "{CLIENT["token_sha256"]}"
"""


def test_a_node_whose_door_is_closed_loads_nothing_for_it() -> None:
    program = (
        "import sys, edge_runtime.app.node\n"
        "loaded = {'h11', 'starlette', 'uvicorn', 'anyio', 'dicom_node.stow'}\n"
        "print(sorted(loaded & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == "[]\n"


def test_the_door_is_closed_by_default() -> None:
    assert not Settings().node.stow.enabled


def parsed(stow: Mapping[str, Any], **node: Any) -> NodeSettings:
    return parse_settings({"node": {**node, "stow": {"enabled": True, **stow}}}, {}).node


def test_an_open_door_with_one_client() -> None:
    stow = parsed({"clients": [CLIENT]}).stow
    assert (stow.bind, stow.path_prefix, stow.clients[0].name) == ("127.0.0.1", "/dicom-web", NAME)


TLS = {"certificate_file": "a.pem", "key_file": "b.pem", "require_client_certificate": False}


@pytest.mark.parametrize(
    ("stow", "node", "reason"),
    [
        ({}, {}, "nobody could store"),
        ({"clients": [CLIENT, {**CLIENT, "name": "B"}]}, {}, "same 'token_sha256'"),
        ({"clients": [CLIENT, {**CLIENT, "token_sha256": "0" * 64}]}, {}, "same 'name'"),
        ({"clients": [{**CLIENT, "token_sha256": "the token"}]}, {}, "token_sha256"),
        ({"clients": [CLIENT], "bind": "0.0.0.0"}, {}, "clear text"),
        ({"clients": [CLIENT], "port": 11112}, {}, "port has to differ"),
        ({"clients": [CLIENT], "port": 2762}, {"tls": TLS}, "port has to differ"),
        ({"clients": [{**CLIENT, "certificate_sha256": "0" * 64}]}, {}, "'ca_file' in node.tls"),
        ({"clients": [CLIENT], "path_prefix": "no-slash"}, {}, "path_prefix"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    stow: dict[str, Any], node: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        parsed(stow, **node)


@pytest.mark.parametrize(
    ("stow", "node"),
    [
        ({"bind": "0.0.0.0", "allow_clear_text": True}, {}),
        ({"bind": "0.0.0.0"}, {"tls": TLS}),
        ({"bind": "::1"}, {}),
    ],
)
def test_where_tokens_may_be_taken(stow: dict[str, Any], node: dict[str, Any]) -> None:
    assert parsed({"clients": [CLIENT], **stow}, **node).stow.enabled


def test_the_settings_of_the_guide_can_be_used() -> None:
    guide = (Path(__file__).parents[4] / "docs/node/stow-rs.md").read_text("utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    node = parse_settings(tomllib.loads(block), {}).node
    assert node.stow.enabled
    assert node.stow.bind == "0.0.0.0"


def slices(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.dcm" for number in range(1, count + 1)]
    for number, path in enumerate(paths, 1):
        write_ct_slice(path, number=number, hu=number, images=count)
    return paths


def held(node: LoneNode) -> list[tuple[Any, ...]]:
    """All that the index says, but for times, random names and the association's id."""
    with contextlib.closing(sqlite3.connect(node.database)) as connection:
        found = connection.execute(
            "SELECT study_instance_uid, identity, study.revision, state, instances, "
            "series_instance_uid, sop_instance_uid, header, file_bytes, "
            "association.calling_ae_title, association.address, association.ended, path "
            "FROM instance JOIN study ON study.id = study_id "
            "JOIN association ON association.id = association_id ORDER BY sop_instance_uid"
        ).fetchall()
    return [(*row[:-1], (node.spool / row[-1]).read_bytes()) for row in found]


def test_a_study_is_the_same_by_whichever_door_it_comes(tmp_path: Path) -> None:
    """Rows and files, byte for byte: nothing behind the doors can tell them apart."""
    paths = slices(tmp_path, 5)
    port = free_port()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with LoneNode(folder=tmp_path / "first") as first:
        send_files(paths, first.address, calling_ae_title=NAME)
        assert first.stop() == 0
        by_dimse = held(first)
    with LoneNode(folder=tmp_path / "second", settings=settings_text(port)) as second:
        with StowSender(port) as sender:
            answer = sender.store(multipart([path.read_bytes() for path in paths]))
        assert answer.status == 200
        assert second.stop() == 0
        by_web = held(second)
    assert len(by_dimse) == 5
    assert by_web == by_dimse


def test_memory_does_not_grow_with_an_instance(tmp_path: Path) -> None:
    port = free_port()
    path = tmp_path / "slice.dcm"
    write_ct_slice(path, number=1, hu=1)
    with LoneNode(folder=tmp_path, settings=settings_text(port)) as node:
        with StowSender(port) as sender:
            assert sender.store(multipart([path.read_bytes()])).status == 200
        before = peak_bytes(node.pid)
        with StowSender(port) as sender:
            answer = send_large(sender, path.read_bytes(), 300 * _MIB)
        assert answer == 200
        assert peak_bytes(node.pid) - before < 8 * _MIB
        assert node.stop() == 0


def send_large(sender: StowSender, small: bytes, size: int) -> int:
    """One more instance of the study, with a private element of ``size`` bytes at its end."""
    file = small.replace(b"1.2.3.1.1\0", b"1.2.3.1.2\0")
    assert file != small
    element = b"\xfe\x7f\x10\x00OB\0\0" + size.to_bytes(4, "little")
    before = f"--{BOUNDARY}\r\n".encode() + PART_HEADERS + b"\r\n" + file + element
    after = f"\r\n--{BOUNDARY}--\r\n".encode()
    sender.send(head(headers={"Content-Length": str(len(before) + size + len(after))}), before)
    piece = os.urandom(_MIB)
    for _ in range(size // _MIB):
        sender.send(piece)
    sender.send(after)
    return sender.answer().status


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


def test_a_stop_ends_the_door_with_the_node(tmp_path: Path) -> None:
    port = free_port()
    with LoneNode(folder=tmp_path, settings=settings_text(port)) as node:
        with StowSender(port) as sender:
            sender.send(head(headers={"Content-Length": "1000", "Expect": "100-continue"}))
            # Before its head is read, a request is no more than a connection, and cut.
            assert sender.socket.recv(_MIB) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sender.send(b"--")
            assert node.stop() == 0
            assert sender.answer().status in {400, 503}
        events = [json.loads(line)["event"] for line in node.log.read_text().splitlines()]
    assert events.index("stow.stopped") < events.index("node.stopped")


def test_no_line_of_the_log_names_client_or_instance(tmp_path: Path) -> None:
    (path,) = slices(tmp_path, 1)
    port = free_port()
    with LoneNode(folder=tmp_path, settings=settings_text(port)) as node:
        for token in ("a-token-of-the-tests", "wrong-token"):
            with StowSender(port) as sender:
                sender.store(multipart([path.read_bytes(), b"junk"]), token=token)
        assert node.stop() == 0
    log = node.log.read_text()
    assert "stow.request_answered" in log
    assert "stow.request_refused" in log
    for secret in (NAME, "1.2.3", "Canary", "CANARY", "token", "127.0.0.1"):
        assert secret not in log, secret
