from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.instance import StudyIdentity
from edge_runtime.outputs.identity import clean_identity, clean_text


def test_a_valid_identity_stays_as_it_is() -> None:
    identity = StudyIdentity(
        patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう",
        patient_id="P 17/4",
        patient_birth_date="20000229",
        patient_sex="O",
        accession_number="ACC-1234567890",
        study_id="1",
        study_date="20251231",
        study_time="235959.123456",
        study_description="CT Schädel nativ",
        referring_physician_name="House^Gregory^^Dr.",
    )
    assert clean_identity(identity) == identity


def test_an_empty_identity_stays_empty() -> None:
    assert clean_identity(StudyIdentity()) == StudyIdentity()


@pytest.mark.parametrize("value", ["x" * 65, "A\\B", "1\x1b$B2", "1\udc802"])
def test_a_patient_id_that_cannot_be_written_is_left_out_not_changed(value: str) -> None:
    assert clean_identity(StudyIdentity(patient_id=value)).patient_id == ""


def test_padding_around_an_identifier_is_no_part_of_it() -> None:
    assert clean_identity(StudyIdentity(patient_id=" 17 \0")).patient_id == "17"


def test_an_accession_number_that_is_too_long_is_left_out() -> None:
    cleaned = clean_identity(StudyIdentity(accession_number="1" * 17, study_id="2" * 17))
    assert (cleaned.accession_number, cleaned.study_id) == ("", "")


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("Doe^J\x1bane", "Doe^J ane"),
        ("Doe\\Jane", "Doe Jane"),
        ("^Jane", "^Jane"),
        ("A^B^C^D^E^F^G", "A^B^C^D^E F G"),
        ("A=B=C=D", "A=B=C"),
        ("=山田", "=山田"),
        ("Doe^Jane===", "Doe^Jane"),
        ("D\udce9p^Jane", "D p^Jane"),
        ("x" * 100 + "^y", "x" * 64),
        ("  ^ ^", ""),
    ],
)
def test_a_broken_name_becomes_a_valid_one(name: str, cleaned: str) -> None:
    assert clean_identity(StudyIdentity(patient_name=name)).patient_name == cleaned


@pytest.mark.parametrize(
    "value", ["2025", "20250229", "2025.01.01", "20251301", "unknown", "²0251231"]
)
def test_a_date_that_is_none_is_left_out(value: str) -> None:
    identity = StudyIdentity(study_date=value, patient_birth_date=value)
    assert clean_identity(identity) == StudyIdentity()


@pytest.mark.parametrize("value", ["24", "12:00:00", "1260", "120000.", "1", "120000.1234567"])
def test_a_time_that_is_none_is_left_out(value: str) -> None:
    assert clean_identity(StudyIdentity(study_time=value)).study_time == ""


@pytest.mark.parametrize("value", ["23", "2359", "235960", "000000.1"])
def test_a_time_may_be_as_short_as_the_standard_allows(value: str) -> None:
    assert clean_identity(StudyIdentity(study_time=value)).study_time == value


@pytest.mark.parametrize(("value", "cleaned"), [("m", "M"), (" F ", "F"), ("W", ""), ("U", "")])
def test_only_the_enumerated_sexes_are_written(value: str, cleaned: str) -> None:
    assert clean_identity(StudyIdentity(patient_sex=value)).patient_sex == cleaned


@given(st.text())
def test_clean_text_is_one_line_within_its_length_that_utf_8_can_carry(value: str) -> None:
    cleaned = clean_text(value, 64)
    assert len(cleaned.encode()) <= 4 * 64
    assert len(cleaned) <= 64
    assert "\\" not in cleaned
    assert cleaned == cleaned.strip()
    assert all(ord(c) >= 32 for c in cleaned)


@given(st.text())
def test_cleaning_twice_changes_nothing(value: str) -> None:
    once = clean_identity(StudyIdentity(patient_name=value, patient_id=value, study_time=value))
    assert clean_identity(once) == once
