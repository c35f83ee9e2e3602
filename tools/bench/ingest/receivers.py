"""The receivers: ours as it ships, the plain one, and the peers found on the machine.

Each runs as a process of its own with its state in a folder of its own, all on one file system.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.config.loading import load_settings
from edge_runtime.process import database_path, spool_path
from edge_runtime.store.processes import Role
from edge_runtime.supervisor.notify import Notice, NotifySocket
from tools.bench.ingest import sink
from tools.bench.ingest.errors import ReceiverNotFoundError, ReceiverNotStartedError
from tools.bench.ingest.names import ReceiverName
from tools.bench.ingest.orders import Address
from tools.bench.ingest.stored import FolderOfFiles, OrthancStatistics, SpoolAndIndex, Stored
from tools.demo.ports import LOOPBACK, free_port

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 10.0
_LOOK_S = 0.02
_SYSTEM_FOLDERS = ":/usr/sbin:/sbin"  # where Debian puts Orthanc
DCMTK_ENVIRONMENT = {"TCP_NODELAY": "1"}
"""Debian builds dcmtk with Nagle's algorithm on, and each answer in two writes: 22 CT slices
a second on one association. No peer is compared in that state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A running receiver."""

    name: ReceiverName
    address: Address
    pid: int
    stored: Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a receiver is started, and what it promises."""

    title: str
    is_durable: bool
    """Everything is synced before it answers, as seen with strace."""
    program: str | None
    """What has to be installed; None: it comes with us."""
    start: Callable[[ReceiverName, Path], contextlib.AbstractContextManager[Receiver]]
    keeps_everything: bool = False
    """What it has stored cannot be taken away while it runs."""
    forks: bool = False


def find_program(name: str) -> str | None:
    """Return the path of a program, also where only root looks.

    Not in our own environment: pynetdicom puts its ``storescp`` and ``storescu`` there, and where
    it is active they stand before dcmtk's.
    """
    ours = Path(sys.executable).parent
    folders = os.environ.get("PATH", os.defpath) + _SYSTEM_FOLDERS
    others = [folder for folder in folders.split(os.pathsep) if Path(folder) != ours]
    return shutil.which(name, path=os.pathsep.join(others))


def is_installed(name: ReceiverName) -> bool:
    """Say whether a receiver can be started here."""
    program = KINDS[name].program
    return program is None or find_program(program) is not None


@contextlib.contextmanager
def running(name: ReceiverName, folder: Path) -> Iterator[Receiver]:
    """Run a receiver that keeps everything in a folder, which is made, until the block ends.

    Raises:
        ReceiverNotFoundError: it is not installed.
        ReceiverNotStartedError: it ended, or does not answer in time.
    """
    kind = KINDS[name]
    if not is_installed(name):
        raise ReceiverNotFoundError(f"{kind.program} is not installed: install it, or leave it out")
    folder.mkdir()
    with kind.start(name, folder) as receiver:
        yield receiver


@contextlib.contextmanager
def _ours(name: ReceiverName, folder: Path) -> Iterator[Receiver]:
    """The process ``node`` as the supervisor starts it, with the settings that it ships with."""
    address = Address(host=LOOPBACK, port=free_port(), ae_title="EDGETRIAGE")
    fast_path = "true" if name is ReceiverName.OURS else "false"
    config = folder / "edge-triage.toml"
    config.write_text(
        f"""
[device]
state_dir = "{folder / "state"}"
[node]
ae_title = "{address.ae_title}"
bind = "{address.host}"
port = {address.port}
fast_path = {fast_path}
""",
        encoding="utf-8",
    )
    log = folder / "log"
    command = [
        *(sys.executable, "-m", "edge_runtime.process"),
        *(Role.NODE.value, "edge_runtime.app.node:run", str(config)),
    ]
    with (
        NotifySocket() as notices,
        _process(command, log, {"NOTIFY_SOCKET": notices.address}) as process,
    ):
        _wait(process, log, lambda: _is_ready(notices))
        settings = load_settings(config, {})
        yield Receiver(
            name=name,
            address=address,
            pid=process.pid,
            stored=SpoolAndIndex(database_path(settings), spool_path(settings)),
        )


def _is_ready(notices: NotifySocket) -> bool:
    select.select([notices], [], [], _LOOK_S)
    return any(message.notice is Notice.READY for message in notices.receive())


def _to_files(
    command: Callable[[int, Path], Sequence[str]], ae_title: str
) -> Callable[[ReceiverName, Path], contextlib.AbstractContextManager[Receiver]]:
    """A receiver that is told a port and a folder, and writes files there."""

    @contextlib.contextmanager
    def start(name: ReceiverName, folder: Path) -> Iterator[Receiver]:
        files = folder / "files"
        files.mkdir()
        log = folder / "log"
        port = free_port()
        with _process(command(port, files), log) as process:
            _wait(process, log, lambda: _listens(port))
            yield Receiver(
                name=name,
                address=Address(host=LOOPBACK, port=port, ae_title=ae_title),
                pid=process.pid,
                stored=FolderOfFiles(files),
            )

    return start


@contextlib.contextmanager
def _orthanc(name: ReceiverName, folder: Path) -> Iterator[Receiver]:
    address = Address(host=LOOPBACK, port=free_port(), ae_title="ORTHANC")
    http_port = free_port()
    config = folder / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "index"),
                "HttpPort": http_port,
                "DicomPort": address.port,
                "DicomAet": address.ae_title,
                "AuthenticationEnabled": False,
            }
        ),
        encoding="utf-8",
    )
    log = folder / "log"
    statistics = OrthancStatistics(LOOPBACK, http_port)
    with _process([find_program("Orthanc") or "Orthanc", str(config)], log) as process:
        _wait(process, log, lambda: statistics.is_up() and _listens(address.port))
        yield Receiver(name=name, address=address, pid=process.pid, stored=statistics)


def _storescp(port: int, files: Path) -> Sequence[str]:
    return [find_program("storescp") or "storescp", "-od", str(files), str(port)]


def _storescp_forked(port: int, files: Path) -> Sequence[str]:
    program = find_program("storescp") or "storescp"
    return [program, "-od", str(files), "+B", "--fork", "-pdu", "131072", str(port)]


def _pynetdicom(port: int, files: Path) -> Sequence[str]:
    return [
        *(sys.executable, "-m", "pynetdicom", "storescp", str(port)),
        *("-od", str(files), "-ba", LOOPBACK),
    ]


def _sink(port: int, files: Path) -> Sequence[str]:
    return [sys.executable, "-I", sink.__file__, str(files), str(port)]


def _sink_direct(port: int, files: Path) -> Sequence[str]:
    return [*_sink(port, files), "--direct"]


KINDS = {
    ReceiverName.OURS: Kind(
        title="our node, as it ships",
        is_durable=True,
        program=None,
        start=_ours,
        keeps_everything=True,
    ),
    ReceiverName.OURS_LIBRARY: Kind(
        title="our node, the library's way (node.fast_path = false)",
        is_durable=True,
        program=None,
        start=_ours,
        keeps_everything=True,
    ),
    ReceiverName.SINK: Kind(
        title="plain TCP, write, fsync, rename, fsync of the folder",
        is_durable=True,
        program=None,
        start=_to_files(_sink, ""),
    ),
    ReceiverName.SINK_DIRECT: Kind(
        title="the same with O_DIRECT",
        is_durable=True,
        program=None,
        start=_to_files(_sink_direct, ""),
    ),
    ReceiverName.STORESCP: Kind(
        title="dcmtk storescp, defaults",
        is_durable=False,
        program="storescp",
        start=_to_files(_storescp, "STORESCP"),
    ),
    ReceiverName.STORESCP_FORKED: Kind(
        title="dcmtk storescp +B --fork -pdu 131072",
        is_durable=False,
        program="storescp",
        start=_to_files(_storescp_forked, "STORESCP"),
        forks=True,
    ),
    ReceiverName.ORTHANC: Kind(
        title="Orthanc, defaults (syncs file data, neither folder nor index)",
        is_durable=False,
        program="Orthanc",
        start=_orthanc,
        keeps_everything=True,
    ),
    ReceiverName.PYNETDICOM: Kind(
        title="pynetdicom storescp, defaults",
        is_durable=False,
        program=None,
        start=_to_files(_pynetdicom, "STORESCP"),
    ),
}
OWN_AND_LIMIT = (ReceiverName.OURS, ReceiverName.SINK, ReceiverName.SINK_DIRECT)
PEERS = (
    ReceiverName.STORESCP,
    ReceiverName.STORESCP_FORKED,
    ReceiverName.ORTHANC,
    ReceiverName.PYNETDICOM,
)


@contextlib.contextmanager
def _process(
    command: Sequence[str], log: Path, more: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **DCMTK_ENVIRONMENT, **(more or {})},
            start_new_session=True,  # Ctrl-C is for the benchmark, which stops it in order
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, is_up: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _START_LIMIT_S
    while not is_up():
        if process.poll() is not None or time.monotonic() > deadline_s:
            said = log.read_text("utf-8", "replace")[-2000:].strip()
            raise ReceiverNotStartedError(f"{process.args!r} did not start: {said}")
        time.sleep(_LOOK_S)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False
