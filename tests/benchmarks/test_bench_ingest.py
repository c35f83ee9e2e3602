"""The benchmark of storing measures what it says and counts what is held; how fast is not asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tools.bench.ingest.names import LoadName, ReceiverName, SenderName
from tools.bench.ingest.receivers import is_installed
from tools.bench.ingest.stored import takes_direct_writes
from tools.cli import app

INSTANCES = 4


def _bench(*arguments: str) -> dict[str, object]:
    answer = CliRunner().invoke(app, ["bench", "ingest", "--json", *arguments])
    assert answer.exit_code == 0, answer.stderr
    found: dict[str, object] = json.loads(answer.stdout)
    assert found["benchmark"] == "ingest"
    assert found["nothing_lost"] is True
    assert found["faults"] == []
    return found


def _rows(found: dict[str, object], key: str) -> list[dict[str, object]]:
    rows = found[key]
    assert isinstance(rows, list)
    return rows


def test_a_short_run_of_ours_and_the_limit_reports_every_cell(tmp_path: Path) -> None:
    found = _bench(
        *("--instances", str(INSTANCES), "--rounds", "2", "--loads", "ct,small"),
        *("--associations", "1,2", "--senders", "blast", "--idle-s", "0.2"),
        *("--folder", str(tmp_path)),
    )
    limits = ["sink", "sink-direct"] if takes_direct_writes(tmp_path) else ["sink"]
    cells = _rows(found, "cells")
    assert {(cell["load"], cell["receiver"], cell["associations"]) for cell in cells} == {
        (load, receiver, count)
        for load in ("ct", "small")
        for receiver in ("ours", *limits)
        for count in (1, 2)
    }
    for cell in cells:
        rate = cell["instances_per_s"]
        assert isinstance(rate, dict)
        assert rate["count"] == 2
        assert 0 < rate["lowest"] <= rate["median"] <= rate["highest"]
        assert isinstance(cell["peak_rss_mb"], float)
        assert cell["peak_rss_mb"] > 5
    assert {(row["to"], row["load"]) for row in _rows(found, "ratios")} == {
        (other, load) for other in limits for load in ("ct", "small")
    }
    assert [idle["associations"] for idle in _rows(found, "idle")] == [0, 25]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peer
def test_every_peer_on_this_machine_is_measured_with_every_sender() -> None:
    found = _bench(
        *("--peers", "--instances", str(INSTANCES), "--rounds", "1", "--loads", "small"),
        *("--associations", "1", "--idle-s", "0", "--receivers", "ours"),
    )
    peers = {name.value for name in ReceiverName if is_installed(name)} - {
        "ours-library",
        "sink",
        "sink-direct",
    }
    cells = _rows(found, "cells")
    assert {cell["receiver"] for cell in cells} == peers
    assert {cell["sender"] for cell in cells} <= {sender.value for sender in SenderName}
    goals = {str(goal["name"]) for goal in _rows(found, "goals")}
    assert "small, blast 1: times as fast as pynetdicom" in goals


def test_figures_are_shown_as_tables_too() -> None:
    answer = CliRunner().invoke(
        app,
        [
            *("bench", "ingest", "--receivers", "ours,sink", "--instances", str(INSTANCES)),
            *("--rounds", "1", "--loads", "small", "--associations", "1", "--idle-s", "0"),
            *("--senders", "blast"),
        ],
    )
    assert answer.exit_code == 0, answer.stderr
    for words in ("64 KB", "ours *", "sink *", "blast 1", "peak RSS", "times as fast as"):
        assert words in answer.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--loads", "ct,ultrasound"),
        ("--receivers", "ours,theirs"),
        ("--senders", "pigeon"),
        ("--associations", "1,many"),
        ("--associations", "0"),
        ("--associations", "33"),
    ],
)
def test_what_cannot_be_measured_is_wrong_usage(arguments: tuple[str, str]) -> None:
    answer = CliRunner().invoke(app, ["bench", "ingest", *arguments])
    assert answer.exit_code == 2
    assert arguments[0].removeprefix("--") or answer.stderr


def test_a_disk_that_is_too_small_is_said_before_anything_starts(tmp_path: Path) -> None:
    answer = CliRunner().invoke(
        app,
        [
            *("bench", "ingest", "--instances", "100000", "--rounds", "100"),
            *("--loads", LoadName.RADIOGRAPH.value, "--folder", str(tmp_path)),
        ],
    )
    assert answer.exit_code == 1
    assert "--folder" in answer.stderr
    assert list(tmp_path.iterdir()) == []
