from __future__ import annotations

import json
import math

import pytest

from tools.console import print_json


def test_what_json_has_no_word_for_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.inf, "b": [1.5, math.nan, {"c": (-math.inf, "x", None, True, 7)}]})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None, {"c": [None, "x", None, True, 7]}],
    }
