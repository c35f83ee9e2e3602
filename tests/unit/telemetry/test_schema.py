"""The shipped JSON Schemas are those of the types, and they accept what the guard makes."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from telemetry.events import TelemetryEvent
from telemetry.guard import EVENT_KINDS, EgressGuard, MessageId
from telemetry.schema import SCHEMA_FOLDER, schema_files, write_schemas

JSON_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    """The part of JSON Schema that the generator uses; an unknown keyword is an error."""
    assert set(schema) <= {
        *("$schema", "title", "type", "properties", "required", "additionalProperties"),
        *("const", "pattern", "enum", "minimum", "maximum", "anyOf", "items", "maxItems"),
    }
    if "anyOf" in schema:
        return any(is_valid(value, option) for option in schema["anyOf"])
    if "const" in schema:
        return bool(value == schema["const"])
    kind: str = schema["type"]
    if not isinstance(value, JSON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    return {
        "object": is_valid_object,
        "array": is_valid_array,
        "string": is_valid_text,
        "boolean": is_anything,
        "null": is_anything,
        "integer": is_within,
        "number": is_within,
    }[kind](value, schema)


def is_valid_object(value: Any, schema: dict[str, Any]) -> bool:
    return (
        set(schema["required"]) == set(schema["properties"]) == set(value)
        and schema["additionalProperties"] is False
        and all(is_valid(value[name], inner) for name, inner in schema["properties"].items())
    )


def is_valid_array(value: Any, schema: dict[str, Any]) -> bool:
    fits = len(value) <= schema["maxItems"]
    return fits and all(is_valid(item, schema["items"]) for item in value)


def is_valid_text(value: Any, schema: dict[str, Any]) -> bool:
    known = value in schema.get("enum", [value])
    return known and re.search(schema.get("pattern", ""), value) is not None


def is_within(value: Any, schema: dict[str, Any]) -> bool:
    return bool(schema["minimum"] <= value <= schema["maximum"])


def is_anything(value: Any, schema: dict[str, Any]) -> bool:  # noqa: ARG001 - one of the table
    return True


def shipped(event: TelemetryEvent) -> dict[str, Any]:
    path = SCHEMA_FOLDER / f"{EVENT_KINDS[type(event)].type_name}.json"
    schema: dict[str, Any] = json.loads(path.read_text())
    return schema


def test_shipped_schemas_are_those_of_the_types() -> None:
    found = {path.name: path.read_text() for path in SCHEMA_FOLDER.iterdir()}
    assert found == schema_files(), "run: python -m telemetry.schema"


def test_schemas_are_written_as_shipped(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == schema_files()


def test_every_message_fits_its_schema(
    guard: EgressGuard, every_event: tuple[TelemetryEvent, ...], message_id: MessageId
) -> None:
    assert {type(event) for event in every_event} == set(EVENT_KINDS)
    for event in every_event:
        assert is_valid(json.loads(guard.encode(event, message_id).payload), shipped(event))


def test_schema_refuses_a_member_more_a_member_less_and_free_text(
    guard: EgressGuard, every_event: tuple[TelemetryEvent, ...], message_id: MessageId
) -> None:
    for event in every_event:
        message = json.loads(guard.encode(event, message_id).payload)
        schema = shipped(event)
        for name in message["data"]:
            less, other = copy.deepcopy(message), copy.deepcopy(message)
            del less["data"][name]
            other["data"][name] = "Doe^Jane"
            assert not is_valid(less, schema)
            assert not is_valid(other, schema)
        message["data"]["patient_name"] = "Doe^Jane"
        assert not is_valid(message, schema)


@pytest.mark.parametrize("time", ["2026-01-31T10:11:00Z", "2026-01-31"])
def test_schema_refuses_a_finer_time(
    guard: EgressGuard, every_event: tuple[TelemetryEvent, ...], message_id: MessageId, time: str
) -> None:
    message = json.loads(guard.encode(every_event[0], message_id).payload)
    assert not is_valid({**message, "time": time}, shipped(every_event[0]))
