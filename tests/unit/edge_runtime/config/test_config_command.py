from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_runtime.config.settings import Settings
from tools.config import app

GOOD = '[device]\nname = "CT 2"\n[telemetry]\nhost = "broker"\n'
BAD = "[node]\nprt = 1\nport = 0\n"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("EDGE_TRIAGE_TELEMETRY_PASSWORD", "CANARY-SECRET")
    return CliRunner()


@pytest.fixture
def good(tmp_path: Path) -> str:
    file = tmp_path / "good.toml"
    file.write_text(GOOD, encoding="utf-8")
    return str(file)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    file = tmp_path / "bad.toml"
    file.write_text(BAD, encoding="utf-8")
    return str(file)


def test_schema_prints_the_json_schema(runner: CliRunner) -> None:
    result = runner.invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == Settings.model_json_schema()
    assert result.stderr == ""


def test_validate_says_that_a_good_file_is_valid(runner: CliRunner, good: str) -> None:
    result = runner.invoke(app, ["validate", good])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("good.toml: valid\n")


def test_validate_reports_a_good_file_as_one_object(runner: CliRunner, good: str) -> None:
    result = runner.invoke(app, ["validate", good, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"file": good, "valid": True, "errors": []}


def test_validate_names_every_mistake_of_a_bad_file_and_exits_1(
    runner: CliRunner, bad: str
) -> None:
    result = runner.invoke(app, ["validate", bad])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "node.prt: unknown key; did you mean 'port'?" in result.stderr
    assert "node.port: " in result.stderr


def test_validate_reports_a_bad_file_as_one_object_and_exits_1(runner: CliRunner, bad: str) -> None:
    result = runner.invoke(app, ["validate", bad, "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["valid"] is False
    assert [line.split(":")[0] for line in report["errors"]] == ["node.port", "node.prt"]


def test_validate_of_a_missing_file_exits_1(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(app, ["validate", str(tmp_path / "none.toml")])
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


@pytest.mark.parametrize("arguments", [["validate"], ["nonsense"], ["show", "--nonsense"]])
def test_wrong_usage_exits_2(runner: CliRunner, arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2


def test_show_prints_every_setting_and_no_secret(runner: CliRunner, good: str) -> None:
    result = runner.invoke(app, ["show", "--config", good])
    assert result.exit_code == 0
    assert "device.name = 'CT 2'\n" in result.stdout
    assert "node.port = 11112\n" in result.stdout
    assert "telemetry.password = '**********'\n" in result.stdout
    assert "CANARY" not in result.output


def test_show_prints_one_object_without_the_secret(runner: CliRunner, good: str) -> None:
    result = runner.invoke(app, ["show", "--config", good, "--json"])
    assert result.exit_code == 0
    values = json.loads(result.stdout)
    assert values["device"]["name"] == "CT 2"
    assert set(values) == set(Settings.model_fields)
    assert "CANARY" not in result.output


def test_show_of_a_bad_file_exits_1_and_shows_no_secret(runner: CliRunner, bad: str) -> None:
    result = runner.invoke(app, ["show", "--config", bad])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "CANARY" not in result.output
