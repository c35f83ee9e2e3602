from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tools.cli import app

SITE = """
[[node.callers]]
ae_title = "CT01"
coercions = [{{ attribute = "{attribute}", value = "SITE" }}]
"""


@pytest.mark.parametrize(
    ("attribute", "is_valid"), [("InstitutionName", True), ("StudyInstanceUID", False)]
)
def test_what_only_the_node_knows_is_checked_before_a_device_is_started(
    tmp_path: Path, attribute: str, *, is_valid: bool
) -> None:
    file = tmp_path / "edge-triage.toml"
    file.write_text(SITE.format(attribute=attribute))
    result = CliRunner().invoke(app, ["config", "validate", "--json", str(file)])
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["valid"]) == (0 if is_valid else 1, is_valid)
    assert all("StudyInstanceUID cannot be coerced" in error for error in answer["errors"])
    assert bool(answer["errors"]) != is_valid
