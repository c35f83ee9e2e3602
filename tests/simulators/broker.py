"""A mosquitto that a test starts and stops as it likes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from simulators.waiting import wait_until
from tools.demo.ports import free_port
from tools.demo.site import find_broker

_STARTS_S = 30.0


class Broker:
    """A broker on a port of its own; it forgets everything when it stops."""

    def __init__(self, folder: Path, extra: Sequence[str] = ("allow_anonymous true",)) -> None:
        """``extra`` are lines of mosquitto.conf(5) that say who may connect."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        lines = (
            "user root",  # it may not read the folder as another user; ignored when not root
            f"listener {self.port} 127.0.0.1",
            "persistence false",
            *extra,
        )
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        program = find_broker()
        assert program is not None, "mosquitto is missing: apt-get install mosquitto"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._config)], stdout=log, stderr=log
            )
        wait_until(self._listens, _STARTS_S)

    def stop(self) -> None:
        """Stop, if it runs."""
        if self._process is not None:
            self._process.kill()  # as a broker ends that loses power
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False
