"""A model on a running device: two people approve it, studies follow it, it is taken back."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.released_package import pack, write_release
from simulators.scanner import Scanner
from simulators.waiting import wait_until
from typer.testing import CliRunner

from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.store.alarms import standing_alarms
from edge_runtime.store.database import connect
from edge_runtime.store.worklist import StudyDetail, find_study
from tools.cli import app
from tools.demo.site import Site, SiteOptions

pytestmark = pytest.mark.usefixtures("temporary_folder")

WAITS_S = 60.0
NAME = "bright"
REPORTED = 4
"""Studies that a model has looked at; one that is for no model is not reported."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    options = SiteOptions(models=(str(tmp_path / "configured"),), approvals=2, with_broker=False)
    write_release(tmp_path / "configured", "1.0.0")
    with Site(tmp_path / "site", options) as running:
        yield running


def run_command(site: Site, *words: str | Path, code: int = 0) -> dict[str, Any]:
    """Run it in this process, which spares a second of imports each time."""
    command = [*(str(word) for word in words), "--config", str(site.config), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return found


def analysed(site: Site, scanner: Scanner) -> StudyDetail:
    """Push a bright study and wait until all that look at it have decided."""
    pushed = scanner.draw(is_bright=True)
    scanner.push(pushed.paths)

    def found() -> StudyDetail | None:
        with contextlib.closing(connect(site.database)) as connection:
            return find_study(connection, pushed.uid)

    def is_decided() -> bool:
        detail = found()
        analyses = (*detail.study.current, *detail.shadows) if detail else ()
        return bool(analyses) and all(item.outcome is not None for item in analyses)

    wait_until(is_decided, WAITS_S)
    detail = found()
    assert detail is not None
    return detail


def versions(detail: StudyDetail) -> list[tuple[str, AnalysisState]]:
    return [(item.model_version, item.state) for item in detail.study.current]


def approve_by_two(site: Site, version: str) -> None:
    package = f"{NAME}@{version}"
    denied = run_command(site, "models", "activate", package, code=1)
    assert "lacks 2 of 2 approvals" in denied["error"]
    run_command(site, "models", "approve", package, "--person", "Ada Byron")
    denied = run_command(site, "models", "approve", package, "--person", "ada  byron", code=1)
    assert "another person" in denied["error"]
    approved = run_command(site, "models", "approve", package, "--person", "Grace Hopper")
    assert approved["state"] == "APPROVED"


def test_a_version_is_approved_by_two_people_tried_used_and_taken_back(
    site: Site, tmp_path: Path
) -> None:
    scanner = Scanner(node=site.node, folder=tmp_path / "scanner", seed=7)
    wait_until(lambda: run_command(site, "models", "list")["packages"], WAITS_S)
    (waiting,) = analysed(site, scanner).study.current
    assert waiting.reason is ReasonCode.NO_ACTIVE_MODEL
    processes = {item.pid for item in site.processes()}

    approve_by_two(site, "1.0.0")
    run_command(site, "models", "activate", NAME)
    assert versions(analysed(site, scanner)) == [("1.0.0", AnalysisState.SUSPECTED)]

    write_release(tmp_path / "new", "1.1.0", demonstration=False)
    archive = pack(tmp_path / "new", tmp_path / "bright-1.1.0.tar.gz", inside="bright-1.1.0")
    assert run_command(site, "models", "install", archive)["state"] == "VERIFIED"
    approve_by_two(site, "1.1.0")
    run_command(site, "models", "activate", f"{NAME}@1.1.0", "--shadow")
    _assert_a_shadow_tells_nobody(site, analysed(site, scanner))

    run_command(site, "models", "activate", f"{NAME}@1.1.0")
    assert versions(analysed(site, scanner)) == [("1.1.0", AnalysisState.SUSPECTED)]
    run_command(site, "models", "rollback", NAME)
    assert versions(analysed(site, scanner)) == [("1.0.0", AnalysisState.SUSPECTED)]

    assert {item.pid for item in site.processes()} == processes, "nothing was restarted"
    wait_until(lambda: len(list(site.pacs_folder.glob("*.dcm"))) == REPORTED, WAITS_S)
    _assert_the_chain_tells_all(site)
    site.stop_device()
    site.start_device()
    site.wait_until_ready()
    assert versions(analysed(site, scanner)) == [("1.0.0", AnalysisState.SUSPECTED)]
    with contextlib.closing(connect(site.database)) as connection:
        assert standing_alarms(connection) == ()


def _assert_a_shadow_tells_nobody(site: Site, detail: StudyDetail) -> None:
    assert versions(detail) == [("1.0.0", AnalysisState.SUSPECTED)]
    (shadow,) = detail.shadows
    assert (shadow.model_version, shadow.state) == ("1.1.0", AnalysisState.SUSPECTED)
    assert shadow.deliveries == ()
    with urllib.request.urlopen(f"{site.page}study/{detail.study.study_key}") as answer:
        assert "Shadow models" in answer.read().decode()
    with urllib.request.urlopen(site.page) as answer:
        assert "hadow" not in answer.read().decode()


def _assert_the_chain_tells_all(site: Site) -> None:
    assert run_command(site, "audit", "verify")["ok"] is True
    entries = run_command(site, "audit", "list")["entries"]
    approval = ("deny", "approve", "deny", "approve")
    assert [entry["record"]["action"] for entry in entries] == [
        *("install", "verify", *approval, "activate"),
        *("install", "verify", *approval, "shadow", "activate", "rollback"),
    ]
    assert {entry["actor"].split()[0] for entry in entries} == {"configuration", "user"}
