from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.media_type import accepted_type, parse_media_type

OFFERS = ("application/dicom+json", "application/json")


@pytest.mark.parametrize(
    "text",
    [
        'multipart/related; type="application/dicom"; boundary=b',
        "multipart/related;type=application/dicom;boundary=b",
        'Multipart/Related ; TYPE = "application/dicom" ; Boundary="b" ;',
        'multipart/related; type="application\\/dicom"; boundary=b;;',
    ],
)
def test_the_ways_in_which_senders_write_the_same_type(text: str) -> None:
    found = parse_media_type(text)
    assert found is not None
    assert found.essence == "multipart/related"
    assert found.parameters == {"type": "application/dicom", "boundary": "b"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "multipart",
        "multipart/",
        "a/b c",
        'a/b; x="unclosed',
        "a/b; x",
        "a/b; x=1; X=2",
        "a/b, c/d",
        "a/b; x=" + "y" * 2_000,
    ],
)
def test_what_is_no_media_type_is_none(text: str) -> None:
    assert parse_media_type(text) is None


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever stands in a header, reading it ends, with a media type or with None."""
    found = parse_media_type(text)
    assert found is None or "/" in found.essence
    accepted_type(text, OFFERS)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ("application/*;q=0.1", "application/dicom+json"),
        ("application/json", "application/json"),
        ("application/json, application/dicom+json", "application/dicom+json"),
        ("text/html, Application/DICOM+JSON; charset=utf-8", "application/dicom+json"),
        ("application/dicom+json;q=0, application/json", "application/json"),
        ("application/dicom+xml", None),
        ("*/*;q=0.000", None),
        (", ,", None),
    ],
)
def test_the_first_offer_that_is_accepted_is_chosen(accept: str, chosen: str | None) -> None:
    assert accepted_type(accept, OFFERS) == chosen
