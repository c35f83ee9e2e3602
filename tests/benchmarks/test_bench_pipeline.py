"""The benchmark of the pipeline measures what it says; how fast is not asked here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simulators.model_package import write_model_package
from typer.testing import CliRunner

from edge_runtime.model.clock import Instant, Mark, Stamp
from edge_runtime.store.processes import Role
from tools.bench.figures import Stage, nearest_rank, spread_of, stages_of
from tools.bench.page_watch import decided_rows
from tools.cli import app
from tools.demo.site import find_broker

SLICES = 12
STUDIES = 2


def _stamp(mark: Mark, mono_us: int, *, subject: str = "", revision: int = 1) -> Stamp:
    at = Instant(wall_us=0, mono_us=mono_us, boot_id="b", clock_synced=True)
    return Stamp(revision=revision, mark=mark, subject=subject, at=at)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(10, 0, -1)]
    assert nearest_rank(values, 50) == 5.0
    assert nearest_rank(values, 95) == 10.0
    assert nearest_rank([7.0], 95) == 7.0
    found = spread_of(values)
    assert (found.count, found.lowest, found.highest) == (10, 1.0, 10.0)


def test_stages_are_cut_at_the_stamps_of_the_revision_asked_for() -> None:
    stamps = [
        _stamp(Mark.LAST_STORED, 10),
        _stamp(Mark.COMPLETE, 20),
        _stamp(Mark.FIRST_STORED, 100, revision=2),
        _stamp(Mark.LAST_STORED, 150, revision=2),
        _stamp(Mark.COMPLETE, 250, revision=2),
        _stamp(Mark.STARTED, 252, subject="m", revision=2),
        _stamp(Mark.DECIDED, 300, subject="m", revision=2),
        _stamp(Mark.SENT, 390, subject="structured_report:m", revision=2),
        _stamp(Mark.SENT, 310, subject="telemetry:m", revision=2),
    ]
    assert stages_of(stamps, 2, 340) == {
        Stage.RECEIVE: 50,
        Stage.TIME_TO_NOTIFICATION: 190,
        Stage.COMPLETION: 100,
        Stage.AFTER_COMPLETION: 90,
        Stage.WAIT: 2,
        Stage.ANALYSE: 48,
        Stage.PAGE: 40,
        Stage.REPORT_SENT: 90,
    }


def test_only_decided_rows_count_as_flags() -> None:
    row = '<tr role="row" id="s-{0}" class="study {1}" data-key="{0}">\n<td>'
    looks = {"a": "receiving", "b": "raised open", "c": "analysing", "d": "not-suspected"}
    event = {"rows": {key: row.format(key, look) for key, look in looks.items()}}
    assert decided_rows(event) == {"b": "raised", "d": "not-suspected"}
    assert decided_rows({"now_ms": 1}) == {}


@pytest.fixture
def outcome(tmp_path: Path) -> dict[str, object]:
    folder = tmp_path / "model"
    write_model_package(folder)
    answer = CliRunner().invoke(
        app,
        [
            *("bench", "pipeline", "--json", "--model", str(folder), "--warm-up", "1"),
            *("--studies", str(STUDIES), "--slices", str(SLICES), "--images-per-s", "200"),
        ],
    )
    assert answer.exit_code == 0, answer.stderr
    found: dict[str, object] = json.loads(answer.stdout)
    return found


def test_a_short_run_reports_every_stage_and_process(outcome: dict[str, object]) -> None:
    assert outcome["benchmark"] == "pipeline"
    machine = outcome["machine"]
    assert isinstance(machine, dict)
    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert len(machine["load_average"]) == 3
    runs = outcome["runs"]
    assert isinstance(runs, list)
    (run,) = runs
    assert run["slices"] == SLICES
    assert run["studies"] == STUDIES
    assert sum(run["outcomes"].values()) == STUDIES
    assert run["outcomes"].keys() <= {"SUSPECTED", "NOT_SUSPECTED"}
    expected = {stage.value for stage in Stage}
    if find_broker() is None:
        expected.remove(Stage.TELEMETRY_CONFIRMED.value)
    assert run["ms"].keys() == expected
    for spread in run["ms"].values():
        assert spread["count"] == STUDIES
        assert 0 <= spread["lowest"] <= spread["median"] <= spread["p95"] <= spread["highest"]
    parts = sum(run["ms"][name]["lowest"] for name in ("completion", "wait", "analyse", "page"))
    assert parts <= run["ms"]["time_to_notification"]["lowest"] + 0.01
    assert 0 < run["images_per_s"]["median"] < 250
    assert run["processes"].keys() == {role.value for role in Role}
    for process in run["processes"].values():
        assert 20 < process["reported_peak_rss_mb"] <= process["peak_rss_mb"] < 2000
        assert process["cpu_ms_per_image"] > 0
    assert run["goals"] == []
