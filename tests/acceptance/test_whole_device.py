"""The device as a site meets it: real senders push, a PACS, a broker and a page get the result."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage
from simulators.broker_ear import listen_to_broker
from simulators.command import PROGRAM, running_command
from simulators.scanner import SLICES, PushedStudy, Scanner
from simulators.waiting import wait_until

from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role
from edge_runtime.store.worklist import StudyView, find_study
from tools.demo.site import Site, SiteOptions

pytestmark = [pytest.mark.peer, pytest.mark.alone, pytest.mark.usefixtures("temporary_folder")]

WAITS_S = 60.0
SEED = 20_250_131
SAYS_STARTING = "starting a device"
SAYS_OUTCOME = "after its last image"


@pytest.fixture
def site(tmp_path: Path, bright_package: Path) -> Iterator[Site]:
    with Site(tmp_path / "site", SiteOptions(models=(str(bright_package),))) as running:
        yield running


@pytest.fixture
def scanner(site: Site, tmp_path: Path) -> Scanner:
    return Scanner(node=site.node, folder=tmp_path / "scanner", seed=SEED)


def _run(site: Site, tool: str, *arguments: str | Path) -> None:
    node = site.node
    command = [tool, "-aet", "SCANNER", "-aec", node.ae_title, node.host, str(node.port)]
    subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=WAITS_S)


def _study_of(site: Site, pushed: PushedStudy) -> StudyView | None:
    with contextlib.closing(connect(site.database)) as connection:
        detail = find_study(connection, pushed.uid)
    return detail.study if detail else None


def _settled(site: Site, pushed: PushedStudy) -> StudyView:
    """Wait until a study is decided and told of everywhere."""

    def is_settled() -> bool:
        study = _study_of(site, pushed)
        states = {
            delivery.channel: delivery.state
            for analysis in (study.current if study else ())
            for delivery in analysis.deliveries
        }
        return states == {
            Channel.STRUCTURED_REPORT: DeliveryState.SENT,
            Channel.TELEMETRY: DeliveryState.CONFIRMED,
        }

    wait_until(is_settled, WAITS_S)
    study = _study_of(site, pushed)
    assert study is not None
    return study


def _get(site: Site, path: str) -> bytes:
    with urllib.request.urlopen(f"{site.page}{path}", timeout=WAITS_S) as answer:
        content: bytes = answer.read()
        return content


# ---------------------------------------------------------------- the way of a study


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_what_dcmtk_pushes_is_flagged_reported_listed_and_told(
    site: Site, scanner: Scanner, tmp_path: Path, tool: str
) -> None:
    with listen_to_broker(site.broker_port, tmp_path / "heard") as ear:
        _run(site, "echoscu")
        bright, dark = scanner.draw(is_bright=True), scanner.draw(is_bright=False)
        for pushed in (bright, dark):
            _run(site, tool, *pushed.paths)
        outcomes = {
            pushed.uid: _settled(site, pushed).current[0].outcome for pushed in (bright, dark)
        }
        assert outcomes == {
            bright.uid: AnalysisState.SUSPECTED,
            dark.uid: AnalysisState.NOT_SUSPECTED,
        }
        wait_until(lambda: len(ear.events("analysis")) == 2, WAITS_S)
        told = {body["data"]["outcome"] for body in ear.events("analysis").values()}
        assert told == {"suspected", "not_suspected"}
        wait_until(lambda: ear.events("health"), WAITS_S)
        _assert_only_the_courier_calls_out(site)
    _assert_reported(site, bright, "BRIGHT SUSPECTED")
    _assert_reported(site, dark, "BRIGHT NOT SUSPECTED")
    listed = json.loads(_get(site, "api/studies"))["studies"]
    assert [study["study_instance_uid"] for study in listed] == [bright.uid, dark.uid]
    page = _get(site, "").decode()
    assert "Suspected" in page
    assert "triage" in page.lower()


def _assert_reported(site: Site, pushed: PushedStudy, description: str) -> None:
    reports = [dcmread(path) for path in site.pacs_folder.glob("*.dcm")]
    (report,) = (item for item in reports if item.StudyInstanceUID == pushed.uid)
    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert str(report.SeriesDescription).endswith(description)


def _assert_only_the_courier_calls_out(site: Site) -> None:
    """Whatever a library would like to tell its maker."""
    calls = {
        process.role: {
            connection.raddr.port
            for connection in psutil.Process(process.pid).net_connections("inet")
            if connection.raddr and connection.laddr.port not in (site.node_port, site.web_port)
        }
        for process in site.processes()
    }
    assert calls[Role.COURIER] <= {site.pacs.port, site.broker_port}
    assert not calls[Role.NODE] | calls[Role.WORKER] | calls[Role.WEB]


# ---------------------------------------------------------------- stopping


def test_a_graceful_stop_leaves_no_process_and_no_lease(site: Site, scanner: Scanner) -> None:
    """The scanner goes on pushing meanwhile, so that every process has something in hand."""
    stop = threading.Event()
    pushing = threading.Thread(target=scanner.push_until, args=(stop,), name="scanner")
    pushing.start()
    try:
        wait_until(lambda: len(scanner.stored) > 5 * SLICES, WAITS_S)
        processes = [psutil.Process(item.pid) for item in site.processes()]
        assert len(processes) == len(Role)
        assert site.stop_device() == 0
        assert not [process for process in processes if process.is_running()]
        _assert_nothing_is_leased(site)
    finally:
        stop.set()
        site.start_device()  # the scanner wants to be rid of its last study
        pushing.join()
    for pushed in scanner.studies:
        assert _settled(site, pushed).instances == SLICES


def _assert_nothing_is_leased(site: Site) -> None:
    with contextlib.closing(connect(site.database)) as connection:
        for table in ("analysis", "delivery"):
            row = connection.execute(
                f"SELECT count(*) FROM {table} WHERE lease_owner IS NOT NULL"
            ).fetchone()
            assert row[0] == 0, table
        open_associations = connection.execute(
            "SELECT count(*) FROM association WHERE ended IS NULL"
        ).fetchone()
    assert open_associations[0] == 0


# ---------------------------------------------------------------- the demonstration


@pytest.mark.timeout(600)
def test_the_demonstration_ends_well_and_keeps_what_it_is_told_to_keep(
    tmp_path: Path, temporary_folder: Path
) -> None:
    kept = tmp_path / "kept"
    done = subprocess.run(
        [PROGRAM, "demo", "--once", "--keep", kept], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["process_restarts"] == 0
    assert [study["label"] for study in report["studies"] if not study["as_expected"]] == []
    assert len(report["studies"]) > 11
    assert (kept / "state" / "triage.db").is_file()
    assert list((kept / "pacs").glob("*.dcm"))
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("words", [SAYS_STARTING, SAYS_OUTCOME])
def test_ctrl_c_stops_the_demonstration_and_leaves_nothing(
    temporary_folder: Path, words: str
) -> None:
    with running_command("demo") as command:
        command.wait_until_it_says(words)
        wait_until(command.descendants)
        descendants = command.descendants()
        os.killpg(command.process.pid, signal.SIGINT)
        command.process.wait(WAITS_S)
        _, left = psutil.wait_procs(descendants, timeout=0.5)
        # A child that the signal met between fork and exec is dead, but nobody may have reaped it.
        assert [item for item in left if item.status() != psutil.STATUS_ZOMBIE] == []
    assert list(temporary_folder.iterdir()) == []
