"""Patterns come with a package and meet a scanner's texts: neither may hold up the device."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter, ValidationError
from simulators.processor_time import at_most

from engines.fields import Pattern

PATTERN: TypeAdapter[str] = TypeAdapter(Pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "^(soft|standard|stnd)$",
        r"^[hj]r?[234]\d",
        "^u[abc]$",
        r"^fc[26]\d$",
        "siemens|ge medical|philips|canon|toshiba",
        ".*soft.*",
        r"^br\d+[a-z]?$",
        r"a\.b\(c\)\?",
        "[]?*+]",
    ],
)
def test_patterns_as_packages_need_them_are_accepted(pattern: str) -> None:
    assert PATTERN.validate_python(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(a+)+$", "repeated groups"),
        ("(a|a)*$", "repeated groups"),
        ("(a{1,9}){1,9}$", "repeated groups"),
        ("(a)?b", "repeated groups"),
        (".*.*.*x", "for ever"),
        ("a?" * 20 + "a" * 20, "for ever"),
        ("(|)" * 20, "for ever"),
        ("(?=a)", r"without '\(\?'"),
        (r"(a)\1", "back references"),
        ("(", "not a regular expression"),
        ("x{99999999999}", "not a regular expression"),
        ("", "at least 1 character"),
    ],
)
def test_a_pattern_that_may_take_for_ever_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PATTERN.validate_python(pattern)


@pytest.mark.parametrize(
    "pattern", ["a*a*b", "a?a?a*a*b", ".*.*(b|c)", "a{0,64}a{0,64}b", "^.*.*b"]
)
def test_the_worst_accepted_patterns_are_quick(pattern: str) -> None:
    PATTERN.validate_python(pattern)
    with at_most(0.2):
        assert re.search(pattern, "a" * 64, re.IGNORECASE) is None
