from __future__ import annotations

from pathlib import Path

import pytest

from tools.doctor.command import examine
from tools.doctor.findings import Status
from tools.doctor.table import CHECKS, checks_for


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[node]\nprot = 104\n", "did you mean 'port'?"),
        ("[node\n", "is not TOML"),
        ("[node]\nport = 0\n", "node.port"),
    ],
)
def test_with_settings_that_cannot_be_used_nothing_else_is_said(
    tmp_path: Path, text: str, named: str
) -> None:
    config = tmp_path / "device.toml"
    config.write_text(text)
    (answer,) = examine(config)
    assert answer.name == "config"
    assert answer.finding.status is Status.FAILED
    assert named in answer.finding.found
    assert f"config validate {config}" in (answer.finding.remedy or "")


def test_settings_that_are_not_there_are_named(tmp_path: Path) -> None:
    (answer,) = examine(tmp_path / "none.toml")
    assert "none.toml: cannot be read" in answer.finding.found


def test_names_of_checks_are_unique_and_fit_for_scripts() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(name.replace(".", "").replace("_", "").isalnum() for name in names)


def test_each_package_has_its_check_behind_that_of_all(make_context: object) -> None:
    assert callable(make_context)
    context = make_context(models={"packages": ["one", "two"]})
    names = [check.name for check in checks_for(context.settings)]
    place = names.index("models")
    assert names[place : place + 3] == ["models", "model.one", "model.two"]
