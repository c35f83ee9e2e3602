"""``edge-triage doctor`` as its users call it, beside real peers and a running device."""

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from dicom_node.archive import FolderArchive
from engines.shipped import shipped_packages
from tools.demo.ports import free_port

pytestmark = pytest.mark.peer

DEADLINE_S = 180.0
PASSWORD = "correct horse battery staple"
EVERY_CHECK = {
    "config",
    "python",
    "sqlite",
    "clock",
    "limits",
    "state_dir",
    "disk",
    "file_system",
    "encryption",
    "codec.jpeg_lossless",
    "codec.jpeg_ls",
    "codec.jpeg_2000",
    "codec.htj2k",
    "codec.rle",
    "codec.jpeg_baseline",
    "models",
    "engines",
    "model.head_ct_phantom",
    "database",
    "processes",
    "alarms",
    "audit",
    "deliveries",
    "retention",
    "ledger",
    "callers",
    "port.node",
    "port.node_tls",
    "certificates.node",
    "port.web",
    "pacs.structured_report",
    "pacs.forward",
    "certificates",
    "broker",
}


def edge_triage(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools", *arguments]


@dataclass
class Site:
    """The settings of a device, and what the doctor says about it."""

    folder: Path
    node_port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    package: str = "head_ct_phantom"
    more: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "device.toml"

    def set_pacs(self, ae_title: str, port: int) -> None:
        self.more += ["[outputs.structured_report.peer]", f'ae_title = "{ae_title}"']
        self.more += ['host = "127.0.0.1"', f"port = {port}"]

    def set_broker(self, port: int, *, version: str = "5", password: str = "") -> None:
        self.more += ["[telemetry]", 'host = "127.0.0.1"', f"port = {port}", "tls = false"]
        self.more += [f'mqtt_version = "{version}"']
        if password:
            self.more += ['username = "device"']
            self.environment["EDGE_TRIAGE_TELEMETRY_PASSWORD"] = password

    def write(self) -> Path:
        lines = [
            "[device]",
            f'state_dir = "{self.state_dir}"',
            "[node]",
            'bind = "127.0.0.1"',
            f"port = {self.node_port}",
            "min_free_bytes = 1048576",
            "[web]",
            f"port = {self.web_port}",
            "[models]",
            f'packages = ["{self.package}"]',
            *self.more,
        ]
        self.config.write_text("\n".join(lines) + "\n")
        return self.config

    def call_doctor(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            edge_triage("doctor", "--config", str(self.write()), *options),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S * 2,
            check=False,
            env={**os.environ, **self.environment},
        )

    def examine(self) -> tuple[int, dict[str, Mapping[str, Any]]]:
        """Return the exit code and the checks by name."""
        done = self.call_doctor("--json")
        report = json.loads(done.stdout)
        assert set(report) == {"ok", "checks"}
        assert report["ok"] == (done.returncode == 0)
        for check in report["checks"]:
            assert set(check) == {"name", "status", "found", "remedy"}
            assert (check["remedy"] is None) == (check["status"] == "OK")
        return done.returncode, {check["name"]: check for check in report["checks"]}


def failed(checks: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {name for name, check in checks.items() if check["status"] == "FAILED"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.state_dir.mkdir()
    return site


@pytest.fixture(scope="module")
def broker_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A mosquitto that knows one user."""
    folder, port = tmp_path_factory.mktemp("broker"), free_port()
    passwords = folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "device", PASSWORD], check=True)
    config = folder / "mosquitto.conf"
    config.write_text(
        "user root\n"  # it may not read the folder as another user; ignored when not root
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
        "persistence false\nlog_dest stderr\n"
    )
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program is not None, "mosquitto is missing: apt-get install mosquitto"
    running = threading.Event()
    with subprocess.Popen([program, "-c", config], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        reader = threading.Thread(target=_watch, args=(process.stderr, running), name="broker-log")
        reader.start()
        try:
            assert running.wait(DEADLINE_S), "mosquitto does not start"
            yield port
        finally:
            process.kill()
            process.wait()
            reader.join()


def _watch(lines: IO[str], running: threading.Event) -> None:
    for line in lines:
        if line.rstrip().endswith("running"):
            running.set()


def test_where_all_is_well_every_check_says_so_and_nothing_is_left_behind(
    site: Site, broker_port: int, tmp_path: Path
) -> None:
    with FolderArchive(tmp_path / "pacs", ae_title="PACS") as pacs:
        site.set_pacs("PACS", pacs.port)
        site.set_broker(broker_port, password=PASSWORD)
        code, checks = site.examine()
    assert failed(checks) == set()
    assert code == 0
    assert set(checks) == EVERY_CHECK
    assert "answers" in checks["pacs.structured_report"]["found"]
    assert "lets the device in" in checks["broker"]["found"]
    assert list(site.state_dir.iterdir()) == []


def test_the_table_names_every_check_and_what_to_do(site: Site) -> None:
    port = free_port()
    site.set_broker(port)
    done = site.call_doctor()
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert all(name in words for name in EVERY_CHECK)
    assert "nothing listens there" in words
    assert "start the broker, or correct telemetry.host and telemetry.port" in words
    assert "1 failed" in words
    assert done.stderr == ""


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_broker_that_does_not_know_the_password_is_told_apart(
    site: Site, broker_port: int, version: str
) -> None:
    site.set_broker(broker_port, version=version, password="wrong horse")
    code, checks = site.examine()
    assert code == 1
    assert failed(checks) == {"broker"}
    assert "EDGE_TRIAGE_TELEMETRY_PASSWORD" in checks["broker"]["remedy"]
    assert "wrong horse" not in json.dumps(checks)


def test_everything_that_is_wrong_is_found_in_one_go(
    site: Site, orthanc: Any, tmp_path: Path
) -> None:
    package = shutil.copytree(shipped_packages()["head_ct_phantom"], tmp_path / "head_ct_phantom")
    with (package / "model.onnx").open("ab") as model:
        model.write(b"\0")
    site.package = str(package)
    site.set_pacs("NOT_ORTHANC", orthanc.dicom_port)
    site.set_broker(free_port())
    (site.state_dir / "triage.db").write_bytes(b"no database " * 1_000)
    with socket.create_server(("127.0.0.1", site.node_port)):
        code, checks = site.examine()
    assert code == 1
    assert failed(checks) == {
        "model.head_ct_phantom",
        "database",
        "audit",  # its head stands in the database
        "port.node",
        "pacs.structured_report",
        "broker",
    }
    assert set(checks) == EVERY_CHECK
    assert "model.onnx" in checks["model.head_ct_phantom"]["found"]
    assert "node.port" in checks["port.node"]["remedy"]
    assert "rejects the association" in checks["pacs.structured_report"]["found"]
    assert "ae_title" in checks["pacs.structured_report"]["remedy"]
    assert "telemetry.port" in checks["broker"]["remedy"]


def test_orthanc_answers_and_takes_structured_reports(site: Site, orthanc: Any) -> None:
    site.set_pacs(orthanc.ae_title, orthanc.dicom_port)
    code, checks = site.examine()
    assert code == 0
    assert "answers" in checks["pacs.structured_report"]["found"]


@contextlib.contextmanager
def running_device(site: Site) -> Iterator[None]:
    log = site.folder / "device.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            edge_triage("run", "--config", str(site.write())),
            stdout=stream,
            stderr=stream,
            env={**os.environ, **site.environment},
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0, log.read_text()


def test_a_running_device_s_own_ports_are_asked_and_fine(
    site: Site, broker_port: int, tmp_path: Path
) -> None:
    with FolderArchive(tmp_path / "pacs", ae_title="PACS") as pacs:
        site.set_pacs("PACS", pacs.port)
        site.set_broker(broker_port, password=PASSWORD)
        with running_device(site):
            deadline_s = time.monotonic() + DEADLINE_S
            _, checks = site.examine()
            while "all of its processes" not in checks["processes"]["found"]:
                found = checks["processes"]["found"]
                log = site.folder / "device.log"
                assert time.monotonic() < deadline_s, f"{found}\n{log.read_text()}"
                _, checks = site.examine()
            code, checks = site.examine()
    assert (code, failed(checks)) == (0, set())
    assert "answers C-ECHO" in checks["port.node"]["found"]
    assert "up to date" in checks["port.web"]["found"]
    assert "whole" in checks["database"]["found"]
    assert "chain holds" in checks["ledger"]["found"]


def test_settings_that_cannot_be_used_are_all_that_is_said(site: Site) -> None:
    site.more = ["[telemetry]", 'hots = "broker"']
    code, checks = site.examine()
    assert code == 1
    assert set(checks) == {"config"}
    assert "did you mean 'host'?" in checks["config"]["found"]
    assert "edge-triage config schema" in checks["config"]["remedy"]


def test_wrong_usage_is_told_apart_from_a_sick_device(site: Site) -> None:
    assert site.call_doctor("--all").returncode == 2
