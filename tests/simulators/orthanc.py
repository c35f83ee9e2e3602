"""A real Orthanc, for tests that need a PACS which we did not write."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from tools.demo.ports import free_port

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """A running Orthanc: a DICOM peer, and a REST interface that tells what it holds."""

    ae_title: str
    host: str
    dicom_port: int
    rest: httpx.Client = field(repr=False)
    process: subprocess.Popen[str] = field(repr=False)

    def kill(self) -> None:
        """End it at once; told to stop, it would first wait for open associations to end."""
        self.process.kill()
        self.process.wait(STOP_DEADLINE_S)

    def instances(self) -> tuple[str, ...]:
        """Return Orthanc's own ids of all instances that it holds."""
        ids: list[str] = self.rest.get("/instances").raise_for_status().json()
        return tuple(ids)

    def file(self, instance: str) -> bytes:
        """Return the DICOM file of an instance."""
        return self.rest.get(f"/instances/{instance}/file").raise_for_status().content

    def study_of(self, instance: str) -> str:
        """Return Orthanc's id of the study that an instance belongs to."""
        study: dict[str, str] = (
            self.rest.get(f"/instances/{instance}/study").raise_for_status().json()
        )
        return study["ID"]

    def clear(self) -> None:
        """Delete everything."""
        for patient in self.rest.get("/patients").raise_for_status().json():
            self.rest.delete(f"/patients/{patient}").raise_for_status()


def _watch(lines: IO[str], started: threading.Event, log: list[str]) -> None:
    for line in lines:
        log.append(line)
        if "Orthanc has started" in line:
            started.set()


def _configure(
    folder: Path,
    ae_title: str,
    dicom_port: int,
    http_port: int,
    settings: Mapping[str, object],
) -> Path:
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "Name": "test",
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "index"),
                "Plugins": [],
                "HttpPort": http_port,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomAet": ae_title,
                "DicomPort": dicom_port,
                "DicomCheckCalledAet": True,
                "SaveJobs": False,
                **settings,
            }
        )
    )
    return configuration


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_DEADLINE_S)


@contextmanager
def run_orthanc(
    folder: Path,
    *,
    dicom_port: int | None = None,
    ae_title: str = "ORTHANC",
    settings: Mapping[str, object] | None = None,
) -> Iterator[Orthanc]:
    """Run an Orthanc that keeps its state in ``folder`` until the block ends.

    ``settings`` replace ours, or add to them.
    """
    port, http_port = dicom_port or free_port(), free_port()
    configuration = _configure(folder, ae_title, port, http_port, settings or {})
    log: list[str] = []
    started = threading.Event()
    with subprocess.Popen(
        ["Orthanc", str(configuration)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        watcher = threading.Thread(
            target=_watch, args=(process.stderr, started, log), name="orthanc-log"
        )
        watcher.start()
        try:
            assert started.wait(START_DEADLINE_S), "".join(log)
            with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=30.0) as rest:
                yield Orthanc(
                    ae_title=ae_title,
                    host="127.0.0.1",
                    dicom_port=port,
                    rest=rest,
                    process=process,
                )
        finally:
            _stop(process)
            watcher.join(STOP_DEADLINE_S)
