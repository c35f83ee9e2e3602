"""``edge-triage resend`` on a real outbox with a delivery that was given up."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import typer
from simulators.hand_clock import HandClock
from typer.testing import CliRunner

from edge_runtime.store.alarms import AlarmCode, raise_alarm, standing_alarms
from edge_runtime.store.database import connect, transaction
from tools.resend import resend

app = typer.Typer()
app.command()(resend)

DEAD = """
INSERT INTO study (study_key, study_instance_uid, identity, state, revision, received_wall_us)
VALUES ('s1', '1.2.3', '{}', 'RECEIVING', 1, 1);
INSERT INTO analysis (study_id, revision, model_name, model_version, urgency, state, queued_wall_us)
VALUES (1, 1, 'm', '1.0.0', 3, 'QUEUED', 1);
INSERT INTO delivery (analysis_id, channel, state, attempts, due_boot_id, due_mono_us, error_code)
VALUES (1, 'structured_report', 'DEAD', 600, 'b', 1, 'PEER_UNREACHABLE');
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "edge-triage.toml"
    file.write_text(f'[device]\nstate_dir = "{tmp_path}"\n', encoding="utf-8")
    return file


def test_dead_deliveries_wait_again_and_their_alarm_is_cleared(
    config: Path, tmp_path: Path
) -> None:
    with contextlib.closing(connect(tmp_path / "triage.db")) as connection:
        connection.executescript(DEAD)
        with transaction(connection):
            raise_alarm(connection, AlarmCode.DELIVERY_DEAD, HandClock().now(), subject="1")
        done = CliRunner().invoke(app, ["--config", str(config), "--json"])
        assert done.exit_code == 0
        assert json.loads(done.stdout)["resent"]["structured_report"] == 1
        row = connection.execute("SELECT state, attempts FROM delivery").fetchone()
        assert tuple(row) == ("PENDING", 0)
        assert standing_alarms(connection) == ()


def test_a_channel_that_is_not_named_is_left_alone(config: Path, tmp_path: Path) -> None:
    with contextlib.closing(connect(tmp_path / "triage.db")) as connection:
        connection.executescript(DEAD)
        arguments = ["--config", str(config), "--channel", "telemetry", "--json"]
        assert json.loads(CliRunner().invoke(app, arguments).stdout) == {"resent": {"telemetry": 0}}
        assert connection.execute("SELECT state FROM delivery").fetchone()["state"] == "DEAD"


def test_a_device_that_never_ran_is_named(config: Path) -> None:
    done = CliRunner().invoke(app, ["--config", str(config)])
    assert done.exit_code == 1
    assert "does not exist" in done.stderr
