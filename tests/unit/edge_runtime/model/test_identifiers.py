from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from edge_runtime.model.identifiers import derived_token, derived_uid

PARTS = st.lists(st.text(st.characters(exclude_characters="\x1f", codec="utf-8")) | st.integers())


@given(PARTS)
def test_a_derived_uid_is_a_valid_dicom_uid_under_the_uuid_root(parts: list[str | int]) -> None:
    uid = UID(derived_uid(*parts))
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert len(uid) <= 44


@given(PARTS)
def test_the_same_parts_give_the_same_identifiers(parts: list[str | int]) -> None:
    assert derived_uid(*parts) == derived_uid(*parts)
    assert derived_token(*parts) == derived_token(*parts)


@given(PARTS, PARTS)
def test_other_parts_give_other_identifiers(one: list[str | int], other: list[str | int]) -> None:
    is_same = [str(part) for part in one] == [str(part) for part in other]
    if one and other:  # no part at all and one empty part are the same
        assert (derived_uid(*one) == derived_uid(*other)) is is_same
        assert (derived_token(*one) == derived_token(*other)) is is_same


def test_parts_do_not_run_into_each_other() -> None:
    assert derived_uid("ab", "c") != derived_uid("a", "bc")
    assert derived_token(1, 23) != derived_token(12, 3)


def test_identifiers_are_the_same_in_every_release() -> None:
    assert derived_uid("token", "report", 7) == ("2.25.300156341733033210456803366549322683828")
    assert derived_token("token", 7) == "9b292babd6c580a0a5970b39"


def test_a_token_is_24_hex_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{24}", derived_token("a", 1))
