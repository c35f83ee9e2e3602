from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_runtime.config.node_settings import NodeSettings
from edge_runtime.config.peers import CallerSettings, PeerSettings
from edge_runtime.config.settings import DeviceSettings, Settings, TelemetrySettings
from edge_runtime.supervisor.services import SERVICES

COUNTS = re.compile(
    r"^(port|report_port|threads|max_(associations|attempts|requests|references|open|steps)|"
    r"max_instances_per_(study|request)|max_pending_per_address|"
    r"approvals_required|.*_per_frame|index|dla_core)$"
)
UNITS = ("_s", "_bytes", "_mib")


def _fields(schema: dict[str, Any], name: str, node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every leaf of the schema with its name, through references, lists and options."""
    node = {**schema["$defs"][node["$ref"].rpartition("/")[2]], **node} if "$ref" in node else node
    branches = [item for item in node.get("anyOf", ()) if item.get("type") != "null"]
    if branches:
        for branch in branches:
            yield from _fields(schema, name, {**_without(node), **branch})
    elif "properties" in node:
        for key, value in node["properties"].items():
            yield from _fields(schema, f"{name}.{key}" if name else key, value)
    elif node.get("type") == "array":
        yield name, node
        yield from _fields(schema, name + "[]", {"description": "-", **node["items"]})
    else:
        yield name, node


def _without(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "anyOf"}


def all_fields() -> list[tuple[str, dict[str, Any]]]:
    schema = Settings.model_json_schema()
    return list(_fields(schema, "", schema))


FIELDS = all_fields()
NUMBERS = [(name, node) for name, node in FIELDS if node.get("type") in {"integer", "number"}]


def test_the_walk_over_the_schema_meets_every_section() -> None:
    assert {name.split(".")[0] for name, _ in FIELDS} == set(Settings.model_fields)
    assert len(NUMBERS) > 20


@pytest.mark.parametrize(("name", "node"), NUMBERS, ids=[name for name, _ in NUMBERS])
def test_every_number_has_bounds_on_both_sides_and_a_unit(name: str, node: dict[str, Any]) -> None:
    assert "minimum" in node or "exclusiveMinimum" in node
    assert "maximum" in node or "exclusiveMaximum" in node
    key = name.rpartition(".")[2]
    assert key.endswith(UNITS) or COUNTS.match(key), f"{name} tells no unit"


@pytest.mark.parametrize(("name", "node"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_setting_says_what_it_is(name: str, node: dict[str, Any]) -> None:
    assert node.get("description"), name


@pytest.mark.parametrize(("name", "node"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_text_and_every_list_has_a_longest_length(name: str, node: dict[str, Any]) -> None:
    if node.get("type") == "array":
        assert "maxItems" in node, name
    if node.get("type") == "string" and node.get("format") != "path" and "enum" not in node:
        assert "maxLength" in node, name


def test_every_section_refuses_unknown_keys() -> None:
    definitions = Settings.model_json_schema()["$defs"]
    sections = [item for item in definitions.values() if item["type"] == "object"]
    assert all(section["additionalProperties"] is False for section in sections)


def test_the_defaults_are_valid_and_survive_a_round_trip_through_json() -> None:
    settings = Settings()
    assert Settings.model_validate(json.loads(settings.model_dump_json())) == settings


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().device.heartbeat_s = 3.0


@pytest.mark.parametrize(
    "title", ["A", "CT01", "PACS@SITE", "AN#7 (B)+", "ABCDEFGHIJKLMNOP", "a-b_c.d", "A B"]
)
def test_an_ae_title_may_be_what_dicom_allows(title: str) -> None:
    assert PeerSettings(ae_title=title, host="pacs", port=104).ae_title == title


@pytest.mark.parametrize(
    "title", ["", " ", " A", "A ", "A\\B", "ABCDEFGHIJKLMNOPQ", "A\n", "A\tB", "Ä", "A\x7f"]
)
def test_an_ae_title_may_not_be_what_dicom_forbids(title: str) -> None:
    with pytest.raises(ValidationError, match="ae_title"):
        PeerSettings(ae_title=title, host="pacs", port=104)


@pytest.mark.parametrize("address", ["192.0.2.7", "192.0.2.0/24", "2001:db8::/32", "::1"])
def test_a_caller_has_an_address_or_a_block(address: str) -> None:
    assert CallerSettings(ae_title="CT", address=address).address == address


@pytest.mark.parametrize("address", ["192.0.2.7/24", "192.0.2.0/33", "1.2.3", "scanner", "::::"])
def test_a_callers_block_that_means_nothing_is_named_before_the_node_starts(address: str) -> None:
    with pytest.raises(ValidationError, match="address"):
        CallerSettings(ae_title="CT", address=address)


def test_a_journal_is_large_enough_for_files_or_there_is_none() -> None:
    assert NodeSettings(journal_bytes=0).journal_bytes == 0
    assert NodeSettings(journal_bytes=4 << 20).journal_bytes == 4 << 20
    with pytest.raises(ValidationError, match="4194304 bytes; 0 is none"):
        NodeSettings(journal_bytes=(4 << 20) - 1)


@pytest.mark.parametrize("bind", ["999.1.1.1", "localhost", "0.0.0.0/0"])
def test_an_address_to_listen_on_is_an_address(bind: str) -> None:
    with pytest.raises(ValidationError, match="bind"):
        NodeSettings(bind=bind)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, 11.0])
def test_a_heartbeat_outside_its_bounds_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="heartbeat_s"):
        DeviceSettings(heartbeat_s=value)


def test_the_longest_heartbeat_is_well_within_the_watchdog() -> None:
    field = DeviceSettings.model_json_schema()["properties"]["heartbeat_s"]
    assert all(field["maximum"] * 2 < service.watchdog_s for service in SERVICES)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("node", "port", True),
        ("device", "heartbeat_s", True),
        ("telemetry", "tls", "off"),
        ("telemetry", "tls", 0),
        ("node", "require_called_ae_title", "no"),
    ],
)
def test_true_is_no_number_and_text_is_no_switch(section: str, key: str, value: object) -> None:
    with pytest.raises(ValidationError, match="true or false"):
        Settings.model_validate({section: {key: value}})


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValidationError, match="go together"):
        TelemetrySettings(certificate_file=Path("c.pem"))


def test_a_password_shows_in_no_text_of_the_settings() -> None:
    settings = Settings.model_validate({"telemetry": {"password": "CANARY-SECRET"}})
    texts = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())]
    assert not any("CANARY" in text for text in texts)
    assert settings.telemetry.password is not None
    assert settings.telemetry.password.get_secret_value() == "CANARY-SECRET"
