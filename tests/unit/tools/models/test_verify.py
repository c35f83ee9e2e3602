"""``edge-triage models verify`` as people and scripts see it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from simulators.model_package import write_model_package
from typer.testing import CliRunner, Result

from edge_runtime.pipeline.answers import CheckName
from tools.cli import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bright"
    write_model_package(folder)
    return folder


def verify(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["models", "verify", *map(str, arguments)])


def test_a_good_archive_passes_and_each_check_says_what_it_found(
    folder: Path, tmp_path: Path
) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", folder.parent, folder.name)
    shown = verify(archive)
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert [name.value for name in CheckName] == [
        words[1] for words in map(str.split, lines) if words[0] in {"OK", "WARNING"}
    ]
    assert lines[-1] == "the package is what its maker sealed"


def test_a_bad_package_is_refused_with_one_object_of_json(folder: Path) -> None:
    (folder / "card.toml").write_text("")
    shown = verify(folder, "--json")
    assert shown.exit_code == 1
    report = json.loads(shown.output)
    assert report["ok"] is False
    first, second, *_ = report["checks"]
    assert first == {
        "name": "checksums",
        "status": "FAILED",
        "found": "card.toml does not match its checksum; install the package again",
        "error": "PackageIntegrityError",
    }
    assert second["status"] == "NOT_RUN"


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "package.zip"
    archive.write_bytes(b"PK\x03\x04 and no more")
    shown = verify(archive)
    assert shown.exit_code == 1
    assert "the archive cannot be unpacked" in shown.output
    assert shown.output.splitlines()[-1] == "refused: do not install it"


def test_what_does_not_exist_is_wrong_usage() -> None:
    assert verify("no-such-package").exit_code == 2
