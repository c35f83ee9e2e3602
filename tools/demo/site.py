"""A whole site on free ports of this machine: device, PACS, and a broker if one is installed.

The device is the real one, started as ``edge-triage run`` starts it; the PACS is a storage SCP over
a folder; the broker is mosquitto. Everything ends with the ``with`` block.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dicom_node.archive import FolderArchive
from dicom_node.requestor import PeerAddress
from edge_runtime.config.loading import load_settings
from edge_runtime.errors import DeviceFaultError, EdgeTriageError
from edge_runtime.process import database_path
from edge_runtime.store.database import connect
from edge_runtime.store.processes import ProcessView, Role, list_processes
from tools.demo.ports import LOOPBACK, free_port

AE_TITLE = "EDGETRIAGE"
PACS_AE_TITLE = "DEMOPACS"
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 4.0  # Ctrl-C ends the demo within 5 s; what is not done by then is killed
_POLL_S = 0.02
_BEAT_SLACK_US = 1_000_000  # twice the heartbeat of the settings below


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOptions:
    """How a site differs from the plain one."""

    with_broker: bool = True
    forward: bool = False
    models: tuple[str, ...] = ("head_ct_phantom",)
    approvals: int = 0
    """How many people must approve a model."""
    pacs: PeerAddress | None = None
    """A PACS to report to instead of the site's own folder."""
    log_level: str = "info"
    settings: str = ""
    """More TOML, appended to the device's settings file."""


def find_broker() -> str | None:
    """Return the path of mosquitto; Debian installs it where only root looks."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


class Site:
    """A context manager: inside it the site runs, after it nothing is left but ``folder``."""

    def __init__(
        self,
        folder: Path,
        options: SiteOptions | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Prepare a site in ``folder``, made if need be: the device's state, and ``pacs/``.

        ``stop`` ends whatever waits for the site with a ``StoppedError``.
        """
        self.stop = stop or threading.Event()
        self.folder = folder
        self._options = options or SiteOptions()
        self._stack = contextlib.ExitStack()
        self._device: subprocess.Popen[bytes] | None = None
        self._started_wall_us = 0
        self.node_port, self.web_port, self.broker_port = free_port(), free_port(), free_port()
        self.broker = find_broker() if self._options.with_broker else None
        self.pacs_folder = folder / "pacs"
        self.config = folder / "edge-triage.toml"
        self.log = folder / "device.log"

    def __enter__(self) -> Site:
        """Start everything and wait until every process is at work.

        Raises:
            DeviceFaultError: a part did not start; the text says which and where its log is.
        """
        try:
            self.pacs_folder.mkdir(parents=True, exist_ok=True)
            self.pacs = self._stack.enter_context(
                FolderArchive(self.pacs_folder, ae_title=PACS_AE_TITLE)
            )
            if self.broker is not None:
                self._stack.enter_context(self._run_broker(self.broker))
            pacs = self._options.pacs or PeerAddress(
                ae_title=PACS_AE_TITLE, host=LOOPBACK, port=self.pacs.port
            )
            self.config.write_text(self._settings_text(pacs), encoding="utf-8")
            self.start_device()
            self._stack.callback(self.stop_device)
            self.wait_until_ready()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        self._stack.close()

    @property
    def node(self) -> PeerAddress:
        """Where a scanner pushes to."""
        return PeerAddress(ae_title=AE_TITLE, host=LOOPBACK, port=self.node_port)

    @property
    def page(self) -> str:
        """Where a radiologist looks."""
        return f"http://{LOOPBACK}:{self.web_port}/"

    @property
    def database(self) -> Path:
        """The device's database."""
        return database_path(load_settings(self.config, {}))

    @property
    def state_dir(self) -> Path:
        """The device's state."""
        return self.folder / "state"

    def start_device(self) -> None:
        """Start the device; its log grows in ``log``."""
        self._started_wall_us = time.time_ns() // 1_000
        with self.log.open("ab") as log:
            self._device = subprocess.Popen(
                [sys.executable, "-m", "tools", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo; it stops the device in order
            )

    def stop_device(self) -> int:
        """Stop the device in order, or by force when it does not end in time; its exit code."""
        device = self._device
        if device is None:
            return 0
        self._device = None
        device.terminate()
        try:
            return device.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(device.pid, signal.SIGKILL)
            return device.wait()

    def processes(self) -> tuple[ProcessView, ...]:
        """Return the device's processes as they last reported."""
        with contextlib.closing(connect(self.database)) as connection:
            return list_processes(connection)

    def wait_until_ready(self) -> None:
        """Wait until all four processes have reported after the start.

        Raises:
            DeviceFaultError: the device ended, or took too long.
        """
        since_wall_us = time.time_ns() // 1_000 - _BEAT_SLACK_US
        wait_until(
            lambda: self._is_ready(since_wall_us),
            limit_s=_START_LIMIT_S,
            otherwise=f"the device did not start in time; its log is {self.log}",
            stop=self.stop,
        )

    def _is_ready(self, since_wall_us: int) -> bool:
        if self._device is None or self._device.poll() is not None:
            raise DeviceFaultError(f"the device ended while it started; its log is {self.log}")
        if not self.database.is_file():
            return False
        # A row of the device's last run may be as young as the slack.
        fresh = [
            item
            for item in self.processes()
            if item.started_wall_us >= self._started_wall_us and item.beat_wall_us >= since_wall_us
        ]
        return len(fresh) == len(Role)

    def _settings_text(self, pacs: PeerAddress) -> str:
        sections = [
            f"""
[device]
name = "Demonstration device"
state_dir = "{self.state_dir}"
heartbeat_s = 0.5
stop_grace_s = 4.0

[node]
ae_title = "{AE_TITLE}"
bind = "{LOOPBACK}"
port = {self.node_port}
min_free_bytes = 67108864

[models]
packages = {json.dumps(self._options.models)}
approvals_required = {self._options.approvals}

[outputs.structured_report.peer]
ae_title = "{pacs.ae_title}"
host = "{pacs.host}"
port = {pacs.port}

[web]
bind = "{LOOPBACK}"
port = {self.web_port}

[logging]
format = "json"
level = "{self._options.log_level}"
"""
        ]
        if self._options.forward:
            sections.append(
                f"""
[outputs.forward.peer]
ae_title = "{pacs.ae_title}"
host = "{pacs.host}"
port = {pacs.port}
"""
            )
        if self.broker is not None:
            sections.append(
                f"""
[telemetry]
host = "{LOOPBACK}"
port = {self.broker_port}
tls = false
health_interval_s = 5.0
"""
            )
        return "".join([*sections, self._options.settings])

    @contextlib.contextmanager
    def _run_broker(self, program: str) -> Iterator[None]:
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.broker_port} {LOOPBACK}\nallow_anonymous true\n", encoding="utf-8"
        )
        with (self.folder / "mosquitto.log").open("wb") as log:
            broker = subprocess.Popen(
                [program, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: _listens(self.broker_port),
                limit_s=_START_LIMIT_S,
                otherwise=f"the broker did not start; see mosquitto.log in {self.folder}",
                stop=self.stop,
            )
            yield
        finally:
            broker.terminate()
            broker.wait()


class StoppedError(EdgeTriageError):
    """The user wants no more of it."""


def wait_until(
    condition: Callable[[], bool],
    *,
    limit_s: float,
    otherwise: str,
    stop: threading.Event | None = None,
) -> None:
    """Wait until a condition holds.

    Raises:
        DeviceFaultError: with the text ``otherwise``, when it does not in time.
        StoppedError: ``stop`` was set meanwhile.
    """
    stop = stop or threading.Event()
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise DeviceFaultError(otherwise)
        if stop.wait(_POLL_S):
            raise StoppedError("stopped")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False
