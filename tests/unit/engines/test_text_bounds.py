"""The corpus holds the hostile texts; here is that honest ones pass, and what bounds reading."""

from __future__ import annotations

import sys

import pytest
from simulators.processor_time import at_most

from engines.errors import PackageSchemaError
from engines.text_bounds import MAX_DOTS_IN_A_LINE, check_json, check_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_a_long_list_of_uids_on_one_line_passes() -> None:
    uids = ", ".join(f'"1.2.840.10008.5.1.4.1.1.{number}"' for number in range(32))
    check_toml("package.toml", f"sop_class_uids = [{uids}]".encode())


def test_a_dotted_key_is_bounded_for_reading_takes_the_square_of_its_dots() -> None:
    key = "a." * MAX_DOTS_IN_A_LINE + "a"
    check_toml("package.toml", f"{key} = 1".encode())
    with at_most(0.5):
        assert set(tomllib.loads(f"{key} = 1")) == {"a"}
    with pytest.raises(PackageSchemaError, match="512 dots"):
        check_toml("package.toml", f"a.{key} = 1".encode())


@pytest.mark.parametrize("content", [b'{"a": {"a": 1}, "b": {"a": 2}}', b"[1, 2]"])
def test_json_whose_objects_have_each_key_once_passes(content: bytes) -> None:
    check_json("evaluation.json", content)


@pytest.mark.parametrize("content", [b'{"a": 1, "\\u0061": 2}', b"{", b"", b"\xff", b"[" * 200_000])
def test_json_that_may_be_read_in_two_ways_is_refused(content: bytes) -> None:
    with pytest.raises(PackageSchemaError, match=r"evaluation\.json"):
        check_json("evaluation.json", content)
