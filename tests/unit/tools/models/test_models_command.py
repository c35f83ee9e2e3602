"""``edge-triage models`` and ``edge-triage audit`` as people and scripts call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simulators.released_package import pack, write_release
from typer.testing import CliRunner, Result

from edge_runtime.governance.chain import CHAIN_NAME
from tools.cli import app


class Device:
    """A settings file, and what its commands answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "edge-triage.toml"
        self.configure()

    def configure(self, models: str = "") -> None:
        self.config.write_text(
            f'[device]\nstate_dir = "{self.folder / "state"}"\n[models]\npackages = []\n{models}\n'
        )

    def call(self, *words: str | Path, code: int = 0) -> Result:
        done = CliRunner().invoke(
            app, [*(str(word) for word in words), "--config", str(self.config)]
        )
        assert done.exit_code == code, done.output
        return done

    def ask(self, *words: str | Path, code: int = 0) -> dict[str, Any]:
        done = self.call(*words, "--json", code=code)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @property
    def chain(self) -> Path:
        return self.folder / "state" / "audit" / CHAIN_NAME


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_release(tmp_path / "bright-1.0.0", "1.0.0", demonstration=False)
    return tmp_path / "bright-1.0.0"


def test_a_package_goes_its_way_through_the_commands(
    device: Device, release: Path, tmp_path: Path
) -> None:
    installed = device.ask("models", "install", pack(release, tmp_path / "a.zip"))
    assert (installed["state"], installed["was_there"]) == ("VERIFIED", False)
    assert installed["approvals_needed"] == 1
    assert "models approve bright@1.0.0" in installed["waits_for"]
    assert device.ask("models", "install", release)["was_there"] is True

    denied = device.call("models", "activate", "bright", code=1)
    assert "lacks 1 of 1 approvals" in denied.stderr
    approved = device.ask(
        "models", "approve", "bright", "--person", "Ada Byron", "--note", "Committee of May"
    )
    assert approved["approvals"][0]["person"] == "Ada Byron"
    assert approved["approvals"][0]["note"] == "Committee of May"
    assert device.ask("models", "activate", "bright")["state"] == "ACTIVE"

    write_release(tmp_path / "bright-1.1.0", "1.1.0")
    device.call("models", "install", tmp_path / "bright-1.1.0")
    assert device.ask("models", "activate", "bright@1.1.0", "--shadow")["state"] == "SHADOW"
    assert device.ask("models", "activate", "bright")["version"] == "1.1.0"
    assert device.ask("models", "rollback", "bright")["version"] == "1.0.0"
    assert device.ask("models", "retire", "bright")["state"] == "RETIRED"

    packages = device.ask("models", "list")["packages"]
    assert [(item["version"], item["state"]) for item in packages] == [
        ("1.0.0", "RETIRED"),
        ("1.1.0", "RETIRED"),
    ]
    entries = device.ask("audit", "list")["entries"]
    assert [entry["record"]["action"] for entry in entries] == [
        *("install", "verify", "deny", "approve", "activate"),
        *("install", "verify", "release", "shadow", "activate", "rollback", "retire"),
    ]
    assert all(entry["actor"].startswith("user ") for entry in entries)
    assert device.ask("audit", "verify") == {
        "ok": True,
        "entries": len(entries),
        "lost_before": 0,
        "head": entries[-1]["hash"],
        "findings": [],
    }


def test_people_get_tables_and_the_next_command(device: Device, release: Path) -> None:
    shown = device.call("models", "install", release).stdout
    assert "bright 1.0.0" in shown
    assert 'edge-triage models approve bright@1.0.0 --person "NAME"' in shown
    assert "VERIFIED" in device.call("models", "list").stdout
    assert "install" in device.call("audit", "list").stdout
    assert "2 entries, none changed" in device.call("audit", "verify").stdout


def test_a_package_that_does_not_pass_is_refused_with_the_reason(
    device: Device, tmp_path: Path
) -> None:
    write_release(tmp_path / "wrong", golden_error=0.5)
    done = device.call("models", "install", tmp_path / "wrong", code=1)
    assert "refused" in done.stderr
    (package,) = device.ask("models", "list")["packages"]
    assert package["state"] == "REFUSED"
    assert package["refusal"]
    assert package["on_disk"] is False


def test_a_changed_package_is_refused_in_one_line(device: Device, release: Path) -> None:
    (release / "card.toml").write_text("x")
    done = device.call("models", "install", release, code=1)
    assert "card.toml" in done.stderr
    assert "Traceback" not in done.output


def test_wrong_usage_is_told_by_the_exit_code(device: Device, tmp_path: Path) -> None:
    device.call("models", "install", tmp_path / "nowhere", code=2)
    device.call("models", "approve", "bright", code=2)


def test_a_device_that_never_ran_has_no_models(device: Device) -> None:
    assert "has the device run" in device.call("models", "list", code=1).stderr
    assert device.ask("audit", "verify")["entries"] == 0


def test_a_changed_entry_is_found_and_named(device: Device, release: Path) -> None:
    device.call("models", "install", release)
    device.chain.write_bytes(device.chain.read_bytes().replace(b'"user ', b'"uSer ', 1))
    found = device.ask("audit", "verify", code=1)
    assert found["ok"] is False
    assert found["findings"][0] == {"fault": "altered", "line": 1}
    assert "line 1 was changed" in device.call("audit", "verify", code=1).stderr
    denied = device.call("models", "retire", "bright", code=1)
    assert "audit verify" in denied.stderr


def test_a_cut_chain_is_noticed_by_what_the_database_remembers(
    device: Device, release: Path
) -> None:
    device.call("models", "install", release)
    lines = device.chain.read_bytes().splitlines(keepends=True)
    device.chain.write_bytes(b"".join(lines[:-1]))
    assert device.ask("audit", "verify", code=1)["findings"] == [{"fault": "cut_short", "line": 1}]
    device.chain.unlink()
    device.call("models", "retire", "bright")
    found = device.ask("audit", "verify")
    assert (found["ok"], found["lost_before"]) == (True, 2)


def test_two_approvals_are_asked_for_where_the_settings_say_so(
    device: Device, release: Path
) -> None:
    device.configure("approvals_required = 2")
    device.call("models", "install", release)
    device.call("models", "approve", "bright", "--person", "Ada Byron")
    again = device.call("models", "approve", "bright", "--person", " ADA BYRON", code=1)
    assert "another person" in again.stderr
    assert device.ask("models", "approve", "bright", "--person", "Grace Hopper")["state"] == (
        "APPROVED"
    )
