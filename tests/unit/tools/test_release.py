"""``edge-triage release`` on a real outbox with a delivery that was given up."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from simulators.retention_bench import KEEP_S, RetentionBench
from typer.testing import CliRunner

from edge_runtime.model.delivery import Channel
from tools.release import release

app = typer.Typer()
app.command()(release)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "edge-triage.toml"
    file.write_text(f'[device]\nstate_dir = "{tmp_path}"\n', encoding="utf-8")
    return file


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RetentionBench]:
    """A device that keeps a study beyond its time because a report of it was given up."""
    made = RetentionBench(tmp_path)
    with contextlib.closing(made.connection):
        made.decided("1.2.3", channels=(Channel.STRUCTURED_REPORT,))
        made.set_deliveries("DEAD")
        made.clock.advance(KEEP_S)
        assert made.sweeper.sweep() == 0
        yield made


def test_what_was_let_go_leaves_at_the_next_sweep(config: Path, bench: RetentionBench) -> None:
    done = CliRunner().invoke(app, ["--config", str(config), "--json"])
    assert done.exit_code == 0
    counts = json.loads(done.stdout)["released"]
    assert counts == {"structured_report": 1, "forward": 0, "telemetry": 0}
    assert bench.sweeper.sweep() == 1


def test_a_channel_that_is_not_named_is_left_alone(config: Path, bench: RetentionBench) -> None:
    done = CliRunner().invoke(app, ["--config", str(config), "--channel", "forward"])
    assert "forward: 0 no longer keep their studies here" in done.stdout
    assert "structured_report" not in done.stdout
    assert bench.sweeper.sweep() == 0
