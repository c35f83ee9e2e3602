from __future__ import annotations

import datetime as dt
import sys

import pytest

from engines.package import Calibration, ModelPackage, OperatingPoint
from tools.head_ct import recipe
from tools.toml_text import TomlStyle, toml_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENT: dict[str, object] = {
    "text": 'quote " backslash \\ newline \n tab \t delete \x7f ä',
    "whole": -3,
    "number": 1e-07,
    "yes": True,
    "none": [],
    "nested": [[1, 2], ["a"]],
    "table": {"inner": {"deep": 1.5}, "plain": "x"},
    "rows": [{"a": 1, "more": {"b": 2}}, {"a": 3, "rows": [{"c": 4}]}],
}


def test_a_document_comes_back() -> None:
    assert tomllib.loads(toml_text(DOCUMENT)) == DOCUMENT


def test_a_package_comes_back() -> None:
    package = recipe.manifest(
        Calibration(slope=0.71, intercept=-1.25),
        OperatingPoint(threshold=0.31, allowed=(0.1, 0.6)),
    )
    text = toml_text(package.model_dump(mode="json", exclude_none=True))

    assert ModelPackage.model_validate(tomllib.loads(text)) == package


def test_what_toml_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        toml_text({"nothing": None})


def test_comments_stand_above_what_they_are_about_and_change_nothing() -> None:
    style = TomlStyle(
        comments={"text": "Long " * 40, "table.inner": "Deep.", "rows": "Only once.", "gone": "x"},
        inline=frozenset({"more"}),
    )
    text = toml_text(DOCUMENT, style)
    lines = text.splitlines()
    assert tomllib.loads(text) == DOCUMENT
    assert max(len(line) for line in lines if line.startswith("#")) <= 98
    assert lines[lines.index("# Deep.") + 1] == "[table.inner]"
    assert lines[lines.index("# Only once.") + 1] == "[[rows]]"
    assert text.count("# Only once.") == 1
    assert "more = { b = 2 }" in lines


def test_dates_and_keys_with_odd_letters_come_back() -> None:
    document = {"day": dt.date(2026, 1, 31), "labels": {"output.1": ["a"], "é": "b"}}
    assert tomllib.loads(toml_text(document)) == document
