"""From a TOML file to settings: every mistake is named with its key and what to do."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from edge_runtime.config.settings import Settings
from edge_runtime.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_FILE_BYTES = 65_536  # 256 callers take 25 kB; what TOML may cost grows with the square

SECRETS: Mapping[str, tuple[str, ...]] = {
    "EDGE_TRIAGE_TELEMETRY_PASSWORD": ("telemetry", "password"),
}
"""Environment variables that carry secrets, and the settings that they fill."""


def load_settings(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read, check and complete the settings file.

    Raises:
        SettingsError: it cannot be read, is no TOML, or says something the schema does not know.
    """
    return parse_settings(read_toml(path), os.environ if environment is None else environment)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        SettingsError: it cannot be read, is too large or is no TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise SettingsError(
                f"{path}: larger than {_MAX_FILE_BYTES} bytes; is it the right file?"
            )
        return parse_toml(content.decode("utf-8"), path)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text: save it as UTF-8") from error


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Return the tables of a TOML text, which is from ``path``.

    Raises:
        SettingsError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number without end
        raise SettingsError(f"{path}: is not TOML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: is not TOML that we read: nested too deeply") from error


def parse_settings(tables: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Check the tables against the schema and add the secrets of the environment.

    Raises:
        SettingsError: lists every mistake, a line each.
    """
    _refuse_secrets(tables)
    merged = _with_secrets(tables, environment)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False)
        lines = [_explain(item) for item in items if not _is_echo(item, items)]
        raise SettingsError("\n".join(lines)) from None


def _refuse_secrets(tables: Mapping[str, Any]) -> None:
    for variable, (section, key) in SECRETS.items():
        table = tables.get(section)
        if isinstance(table, Mapping) and key in table:
            raise SettingsError(
                f"{section}.{key}: secrets do not belong into the file: "
                f"set the environment variable {variable} instead"
            )


def _with_secrets(tables: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    merged = dict(tables)
    for variable, (section, key) in SECRETS.items():
        table = merged.get(section, {})
        if variable in environment and isinstance(table, Mapping):
            merged[section] = {**table, key: environment[variable]}
    return merged


def _is_echo(item: Any, items: Sequence[Any]) -> bool:
    """Say whether a list is called too short only because what is wrong in it was not counted."""
    location = tuple(item["loc"])
    return item["type"] == "too_short" and any(
        len(other["loc"]) > len(location) and tuple(other["loc"])[: len(location)] == location
        for other in items
    )


def _explain(item: Any) -> str:
    location = tuple(item["loc"])
    name = ".".join(text if text.isprintable() else repr(text) for text in map(str, location))
    if item["type"] != "extra_forbidden":
        return f"{name or 'settings'}: {item['msg'].removeprefix('Value error, ')}"
    nearest = difflib.get_close_matches(str(location[-1]), _keys_beside(location), n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else "see `edge-triage config schema`"
    return f"{name}: unknown key; {hint}"


def _keys_beside(location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that the schema knows where an unknown key was found."""
    model: type[BaseModel] | None = Settings
    for part in location[:-1]:
        if isinstance(part, str) and model is not None:
            field = model.model_fields.get(part)
            model = _model_in(field.annotation) if field else None
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)
