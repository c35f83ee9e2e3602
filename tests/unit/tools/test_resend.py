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


DEAD_ERRAND = """
INSERT INTO commitment (ae_title, transaction_uid, address, wanted, booked_wall_us,
patience_boot_id, patience_mono_us) VALUES ('A', '1.9', '', x'00', 0, 'b', 0);
INSERT INTO errand (kind, state, peer, commitment_id, due_boot_id, due_mono_us, error_code)
VALUES ('commitment_report', 'DEAD', 'A', 1, 'b', 1, 'PEER_UNREACHABLE');
"""


def test_dead_errands_wait_again_unless_a_channel_is_named(config: Path, tmp_path: Path) -> None:
    with contextlib.closing(connect(tmp_path / "triage.db")) as connection:
        connection.executescript(DEAD_ERRAND)
        with transaction(connection):
            raise_alarm(connection, AlarmCode.COMMITMENT_DEAD, HandClock().now(), subject="1")
        named = ["--config", str(config), "--channel", "forward", "--json"]
        assert json.loads(CliRunner().invoke(app, named).stdout) == {"resent": {"forward": 0}}
        done = CliRunner().invoke(app, ["--config", str(config), "--json"])
        counts = json.loads(done.stdout)["resent"]
        assert (counts["commitment_report"], counts["mpps_relay"]) == (1, 0)
        assert connection.execute("SELECT state FROM errand").fetchone()["state"] == "PENDING"
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
