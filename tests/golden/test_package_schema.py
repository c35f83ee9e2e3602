"""docs/package.schema.json is the schema that the code has: regenerate and compare."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from tools.models import app
from tools.models.schema import package_schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "package.schema.json"


def test_the_published_schema_is_current() -> None:
    published = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    assert published == package_schema(), (
        "run: edge-triage models schema > docs/package.schema.json"
    )


def test_the_command_prints_the_published_schema() -> None:
    done = CliRunner().invoke(app, ["schema"])
    assert json.loads(done.stdout) == json.loads(DOCUMENT.read_text(encoding="utf-8"))


def test_the_schema_is_closed_and_says_what_keys_mean() -> None:
    schema = package_schema()
    assert schema["additionalProperties"] is False
    assert all(inner["additionalProperties"] is False for inner in closed(schema["$defs"]))
    assert "Lowest version of edge-triage" in json.dumps(schema)


def closed(definitions: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """The definitions of tables; enumerations have no properties."""
    return [inner for inner in definitions.values() if inner["type"] == "object"]
