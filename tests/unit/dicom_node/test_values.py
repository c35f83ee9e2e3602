from __future__ import annotations

import pytest

from dicom_node import values
from dicom_node.status import is_stored
from dicom_node.uids import is_valid_uid


@pytest.mark.parametrize(
    ("terms", "raw", "expected"),
    [
        ([], b"M\xfcller^J\xf6rg ", "Müller^Jörg"),
        (["ISO_IR 100"], b"M\xfcller", "Müller"),
        (["ISO-IR 192"], "Ωmega".encode(), "Ωmega"),
        (["ISO_IR 144"], "Люксембург".encode("iso8859_5"), "Люксембург"),
        (["GB18030"], "王^小东".encode("gb18030"), "王^小东"),
        (
            ["", "ISO 2022 IR 87"],
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
        ),
        (["", "ISO 2022 IR 149"], b"Hong=\x1b$)C\xfb\xf3", "Hong=洪"),
        (["no such set"], b"plain", "plain"),
        (["ISO_IR 192"], b"bad \xff byte", "bad � byte"),
        (["ISO_IR 100"], b"bad \x1b%Z escape", "bad %Z escape"),
    ],
)
def test_text_is_decoded_by_its_character_set(terms: list[str], raw: bytes, expected: str) -> None:
    assert values.text_of(raw, values.codecs_of(terms)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1.5", 1.5), (" -2e3 ", -2000.0), ("", None), ("1,5", None), ("nan", None), ("inf", None)],
)
def test_decimal_string_is_a_finite_number_or_nothing(text: str, expected: float | None) -> None:
    assert values.number_of(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("7", 7), ("7.0", 7), ("7.5", None), ("x", None)])
def test_integer_string_tolerates_a_point_zero(text: str, expected: int | None) -> None:
    assert values.integer_of(text) == expected


def test_vector_needs_all_its_numbers() -> None:
    assert values.numbers_of(b"1\\2\\3 ", 3) == (1.0, 2.0, 3.0)
    assert values.numbers_of(b"1\\2", 3) is None
    assert values.numbers_of(b"1\\2\\x", 3) is None
    assert values.numbers_of(b"1\\2\\3\\4", 3) is None


@pytest.mark.parametrize(
    ("age", "years"), [("045Y", 45.0), ("018M", 1.5), ("000D", 0.0), ("45", None), ("", None)]
)
def test_age_string_becomes_years(age: str, years: float | None) -> None:
    assert values.years_of(age) == years


def test_age_is_counted_from_two_dates() -> None:
    assert values.years_between("20000101", "20050101") == pytest.approx(5, abs=0.01)
    assert values.years_between("2000.01.01", "20010101") == pytest.approx(1, abs=0.01)
    assert values.years_between("20050101", "20000101") is None
    assert values.years_between("20001301", "20050101") is None
    assert values.years_between("", "20050101") is None


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008.1.2", "1.02.3", "2.25." + "9" * 59])
def test_uids_of_real_devices_are_valid(uid: str) -> None:
    assert is_valid_uid(uid)


@pytest.mark.parametrize(
    "uid",
    ["", ".", "1.", ".1", "1..2", "1.2/3", "../1", "1.2\n", "1.a", "1" * 65, "1.\u0663", " 1.2"],
)
def test_what_could_escape_a_path_or_a_key_is_no_uid(uid: str) -> None:
    assert not is_valid_uid(uid)


def test_warnings_count_as_stored_and_failures_do_not() -> None:
    assert all(map(is_stored, (0x0000, 0xB000, 0xB007, 0x0107)))
    assert not any(map(is_stored, (0x0124, 0x0110, 0xA700, 0xA900, 0xC000, 0xFE00)))
