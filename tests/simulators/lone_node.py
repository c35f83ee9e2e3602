"""The process ``node`` of a device, alone: run as the supervisor runs it, stopped and killed."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType

from dicom_node.requestor import PeerAddress
from edge_runtime.supervisor.notify import Notice, NotifySocket
from simulators.forked_node import ForkedNode
from simulators.waiting import wait_until
from tools.demo.ports import LOOPBACK, free_port
from tools.demo.site import AE_TITLE

_READY_S = 60.0
_ENDS_S = 30.0
_JOURNAL_BYTES = 8 << 20
_JOURNAL_SETTLED = (b'"node.journal_ready"', b'"node.journal_off"')


class Way(Enum):
    """The ways of an instance from the socket to the disk."""

    JOURNAL = "with the journal"
    """A large one takes the next way all the same."""
    SYNCED = "straight from the socket"
    LIBRARY = "through the library"

    @property
    def fast_path(self) -> bool:
        """The data set does not pass the library."""
        return self is not Way.LIBRARY

    @property
    def journal_bytes(self) -> int:
        """A journal is in front of the files, or none."""
        return _JOURNAL_BYTES if self is Way.JOURNAL else 0


@dataclass(slots=True, kw_only=True)
class LoneNode:
    """A context manager: after it, nothing runs; the state stays in ``state_dir``."""

    folder: Path
    """For the settings and the log; the state's default place."""
    fast_path: bool = True
    min_free_bytes: int = 0
    journal_bytes: int = _JOURNAL_BYTES
    """0: none."""
    settings: str = ""
    """More TOML, appended to the settings file."""
    state_dir: Path = field(init=False)
    port: int = field(init=False)
    pid: int = field(init=False, default=0)
    """Of the last process."""
    _process: ForkedNode | None = field(init=False, default=None)
    _began: int = field(init=False, default=0)
    """Where in the log the last start begins."""

    def __post_init__(self) -> None:
        self.state_dir = self.folder / "state"
        self.port = free_port()

    def __enter__(self) -> LoneNode:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is left of it."""
        self.kill()

    @property
    def address(self) -> PeerAddress:
        """Where a scanner pushes to."""
        return PeerAddress(ae_title=AE_TITLE, host=LOOPBACK, port=self.port)

    @property
    def database(self) -> Path:
        """The index."""
        return self.state_dir / "triage.db"

    @property
    def spool(self) -> Path:
        """The folder of received files."""
        return self.state_dir / "spool"

    @property
    def log(self) -> Path:
        """What the node said, over all starts."""
        return self.folder / "node.log"

    @property
    def is_alive(self) -> bool:
        """The node has not ended."""
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """Make the process, which does nothing before ``start``: it can be traced from there on."""
        with self.log.open("ab") as log:
            self._began = log.tell()
            self._process = ForkedNode(log)
        self.pid = self._process.pid

    def start(self) -> bool:
        """Start it.

        Wait until it listens and has a journal or knows that it gets none, or has ended.

        Returns:
            It listens.
        """
        if self._process is None:
            self.prepare()
        assert self._process is not None
        config = self.folder / "node.toml"
        config.write_text(self._settings_text(), encoding="utf-8")
        with NotifySocket() as notices:
            self._process.begin(config, {**os.environ, "NOTIFY_SOCKET": notices.address})
            if self._wait_until_ready(self._process, notices) and self.journal_bytes:
                wait_until(lambda: not self.is_alive or self._has_settled_journal(), _READY_S)
        if not self.is_alive:
            self._process = None
        return self._process is not None

    def said(self) -> bytes:
        """Its log since the last start."""
        return self.log.read_bytes()[self._began :]

    def _has_settled_journal(self) -> bool:
        said = self.said()
        return any(event in said for event in _JOURNAL_SETTLED)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._end()

    def wait_until_dead(self) -> int:
        """Wait for an end that something else brings about; the exit code."""
        return self._end()

    def _end(self) -> int:
        assert self._process is not None
        code = self._process.wait(_ENDS_S)
        self._process = None
        return code

    def _wait_until_ready(self, process: ForkedNode, notices: NotifySocket) -> bool:
        watched: list[NotifySocket | ForkedNode] = [notices, process]
        ends_s = time.monotonic() + _READY_S
        while process.poll() is None:
            left_s = ends_s - time.monotonic()
            found, _, _ = select.select(watched, [], [], max(0.0, left_s))
            assert found, f"the node does not start; its log is {self.log}"
            for message in notices.receive():
                if message.notice is Notice.READY:
                    assert message.pid == self.pid
                    return True
        return False

    def _settings_text(self) -> str:
        return f"""
[device]
state_dir = "{self.state_dir}"
heartbeat_s = 10.0
stop_grace_s = 4.0

[node]
ae_title = "{AE_TITLE}"
bind = "{LOOPBACK}"
port = {self.port}
min_free_bytes = {self.min_free_bytes}
journal_bytes = {self.journal_bytes}
fast_path = {str(self.fast_path).lower()}

[logging]
format = "json"
level = "debug"
{self.settings}"""
