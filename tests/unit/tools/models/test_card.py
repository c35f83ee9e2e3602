"""``edge-triage models card`` on folders, on shipped packages, and on what a device installed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import typer
from simulators.model_package import write_model_package
from typer.testing import CliRunner

from engines.checksums import CHECKSUMS
from engines.loading import load_package
from engines.shipped import shipped_packages
from engines.writing import write_checksums
from tools.models.card import card
from tools.models.store import opened_store

app = typer.Typer()
app.command()(card)

SHIPPED = sorted(shipped_packages())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "edge-triage.toml"
    state = tmp_path / "state"
    state.mkdir()
    file.write_text(f'[device]\nstate_dir = "{state}"\n', encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model_package(tmp_path / "package")
    return tmp_path / "package"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("form", ["text", "html", "xml"])
def test_the_card_of_a_shipped_package_renders(name: str, form: str, config: Path) -> None:
    written = run(name, "--config", str(config), "--format", form)
    package = load_package(shipped_packages()[name])
    assert package.manifest.version in written
    assert package.manifest.disclaimer.split(".", maxsplit=1)[0] in " ".join(written.split())
    assert package.digest in written
    if form == "xml":
        results = ET.fromstring(written).iter("{https://mc.chai.org/v0.2/schema.xsd}ValueJson")
        quoted = [json.loads(result.text or "") for result in results]
        measured = {estimate.value for estimate in package.evaluation.estimates}
        assert {item["estimate"] for item in quoted if item["kind"] == "estimate_ci"} <= measured


def test_json_holds_the_papers_as_they_are(folder: Path) -> None:
    shown = json.loads(run(str(folder), "--json"))
    package = load_package(folder)
    assert shown["digest"] == package.digest
    assert shown["card"]["developer"]["name"] == package.card.developer.name
    measured = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert shown["evaluation"]["estimates"][0]["value"] == measured["estimates"][0]["value"]
    assert shown["notices"][0] == "For triage, not for diagnosis."
    assert "written" not in shown


@pytest.mark.parametrize(("form", "start"), [("html", b"<!doctype html>"), ("xml", b"<?xml ")])
def test_a_file_is_written_whole_and_named(
    folder: Path, tmp_path: Path, form: str, start: bytes
) -> None:
    file = tmp_path / f"card.{form}"
    said = run(str(folder), "--format", form, "--out", str(file))
    content = file.read_bytes()
    assert content.startswith(start)
    assert str(file) in said.replace("\n", "")
    again = json.loads(run(str(folder), "--format", form, "--out", str(file), "--json"))
    assert again["written"] == {
        "file": str(file),
        "format": form,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_a_file_that_cannot_be_written_is_named_with_the_remedy(
    folder: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, [str(folder), "--out", str(tmp_path / "none" / "card.txt")])
    assert done.exit_code == 1
    assert "choose another --out" in done.stderr


def test_a_name_that_nobody_knows_is_refused(config: Path) -> None:
    done = CliRunner().invoke(app, ["nobody", "--config", str(config)])
    assert done.exit_code == 1
    assert "'nobody'" in done.stderr


def test_a_changed_package_is_refused(folder: Path) -> None:
    (folder / "card.toml").write_text("disclaimers = []", encoding="utf-8")
    done = CliRunner().invoke(app, [str(folder)])
    assert done.exit_code == 1
    assert "card.toml" in done.stderr


def later_version(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    for name in ("package.toml", "evaluation.json"):
        text = (to / name).read_text(encoding="utf-8")
        (to / name).write_text(text.replace('"1.0.0"', '"1.0.1"'), encoding="utf-8")
    (to / CHECKSUMS).unlink()
    write_checksums(to)
    return to


def test_an_installed_package_is_found_by_name_version_and_digest(
    folder: Path, config: Path, tmp_path: Path
) -> None:
    with opened_store(config, may_be_new=True) as store:
        first = store.install(folder).package
        second = store.install(later_version(folder, tmp_path / "later")).package
        for reference in ("bright@1.0.1", second.digest[:12]):
            assert second.digest in run(reference, "--config", str(config))
        done = CliRunner().invoke(app, ["bright", "--config", str(config)])
        assert done.exit_code == 1, "two versions wait, none is active: the name means neither"
        assert "bright@1.0.1" in done.stderr
        store.activate("bright@1.0.0")
        assert first.digest in run("bright", "--config", str(config)), "the active one"
