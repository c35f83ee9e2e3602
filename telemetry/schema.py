"""JSON Schemas of the messages, generated from the event types.

The files in ``telemetry/schemas`` are package data for whoever receives the messages. After a
change of an event type: ``python -m telemetry.schema``; a test compares.
"""

from __future__ import annotations

import json
from pathlib import Path

from telemetry.closed import JsonValue
from telemetry.guard import EVENT_KINDS, TIME_FIELD, EventKind
from telemetry.policy import DEVICE_ID_PATTERN

SCHEMA_FOLDER = Path(__file__).parent / "schemas"


def schema_of(kind: EventKind) -> dict[str, JsonValue]:
    """Describe one message, envelope and data, as JSON Schema (draft 2020-12)."""
    data = kind.record.schema()
    shapes = {name: shape for name, shape in kind.record.shapes.items() if name != TIME_FIELD}
    data["properties"] = {name: shape.schema() for name, shape in shapes.items()}
    data["required"] = list(shapes)
    envelope: dict[str, JsonValue] = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "pattern": "^[0-9]{1,10}-[dq][0-9]{1,16}$"},
        "source": {"type": "string", "pattern": DEVICE_ID_PATTERN},
        "type": {"const": kind.type_name},
        "time": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:00:00Z$"},
        "datacontenttype": {"const": "application/json"},
        "data": data,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.type_name,
        "type": "object",
        "properties": envelope,
        "required": list(envelope),
        "additionalProperties": False,
    }


def schema_files() -> dict[str, str]:
    """Return file name and text of every schema."""
    return {
        f"{kind.type_name}.json": json.dumps(schema_of(kind), indent=2) + "\n"
        for kind in EVENT_KINDS.values()
    }


def write_schemas(folder: Path) -> None:
    """Write every schema into a folder."""
    for name, text in schema_files().items():
        (folder / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    write_schemas(SCHEMA_FOLDER)
