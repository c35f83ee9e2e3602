"""Where the preferred engine cannot run, everyone who asks is told which one did."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from simulators.broker_ear import BrokerEar, listen_to_broker
from simulators.scanner import Scanner
from simulators.waiting import wait_until

from edge_runtime.config.loading import load_settings
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role
from edge_runtime.store.worklist import StudyView, find_study
from engines.device.driver import find_driver
from engines.errors import DeviceUnavailableError
from tools.demo.site import Site, SiteOptions
from tools.doctor.checks_engines import check_engines
from tools.doctor.findings import Context, Status

pytestmark = [pytest.mark.peer, pytest.mark.alone, pytest.mark.usefixtures("temporary_folder")]

WAITS_S = 60.0
ENGINE = '[engine]\npreference = ["tensorrt", "onnxruntime"]\nfallback = true\n'
IN_PLACE_OF = "in place of tensorrt"


@pytest.fixture(autouse=True)
def _without_gpu() -> None:
    with contextlib.suppress(DeviceUnavailableError):
        find_driver()
        pytest.skip("this machine has a GPU: nothing falls back here")


def test_a_fallback_shows_on_the_page_in_the_report_in_telemetry_and_in_doctor(
    tmp_path: Path, bright_package: Path
) -> None:
    options = SiteOptions(models=(str(bright_package),), settings=ENGINE)
    with (
        Site(tmp_path / "site", options) as site,
        listen_to_broker(site.broker_port, tmp_path / "heard") as ear,
    ):
        scanner = Scanner(node=site.node, folder=tmp_path / "scanner", seed=1)
        pushed = scanner.draw(is_bright=True)
        scanner.push(pushed.paths)
        study = _reported(site, pushed.uid)
        wait_until(lambda: ear.events("analysis"), WAITS_S)
        engine = study.current[0].engine or ""
        assert engine.endswith(IN_PLACE_OF)
        assert "runs on another engine than the one preferred" in _get(site, "")
        assert "instead of tensorrt" in _get(site, "device")
        assert engine in _get(site, f"study/{study.study_key}")
        assert (
            json.loads(_get(site, f"api/studies/{study.study_key}"))["analyses"][0]["engine"]
            == engine
        )
        (report,) = site.pacs_folder.glob("*.dcm")
        assert f"engine {engine}".encode() in report.read_bytes()
        birth = _born_again(site, ear)
        assert birth["backends"] == ["onnxruntime_cpu"]
        assert birth["in_place_of"] == ["tensorrt"]
        (analysis,) = ear.events("analysis").values()
        assert analysis["data"]["backend"] == "onnxruntime_cpu"
        found = check_engines(Context(settings=load_settings(site.config, {})))
        assert found.status is Status.WARNING
        assert "driver" in found.found


def _born_again(site: Site, ear: BrokerEar) -> dict[str, Any]:
    """Let the courier start anew, and return what it then says of the device.

    What it said at the device's start may have been over before anybody listened.
    """
    (courier,) = (each.pid for each in site.processes() if each.role is Role.COURIER)

    def births() -> list[dict[str, Any]]:
        return [
            message.body["data"] for message in ear.messages() if b"birth.v1" in message.payload
        ]

    heard = len(births())
    os.kill(courier, signal.SIGTERM)
    wait_until(lambda: len(births()) > heard, WAITS_S)
    return births()[-1]


def _reported(site: Site, uid: str) -> StudyView:
    """Wait until a study is decided, and its report at the PACS."""
    with contextlib.closing(connect(site.database)) as connection:
        wait_until(
            lambda: (
                bool(list(site.pacs_folder.glob("*.dcm")))
                and find_study(connection, uid) is not None
            ),
            WAITS_S,
        )
        detail = find_study(connection, uid)
    assert detail is not None
    return detail.study


def _get(site: Site, path: str) -> str:
    with urllib.request.urlopen(f"{site.page}{path}", timeout=WAITS_S) as answer:
        content: bytes = answer.read()
    return content.decode()
