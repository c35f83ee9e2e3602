"""The conformance statement says what the code does: here it is made again and compared."""

from __future__ import annotations

import re
from pathlib import Path

from dicom_node.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicom_node.status import StoreStatus
from tools.conformance.statement import document

# The checkout's: the tests may run on an installed wheel, which has no docs.
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance-statement.md"


def test_the_statement_is_what_the_code_does() -> None:
    is_fresh = DOCUMENT.read_text(encoding="utf-8") == document()
    assert is_fresh, "run `python -m tools.conformance` and read what has changed"


def test_every_class_syntax_and_status_stands_in_it() -> None:
    text = document()
    codes = set(re.findall(r"`([^`]+)`", text))
    assert {str(each) for each in (*STORAGE_CLASSES, *TRANSFER_SYNTAXES)} <= codes
    assert {f"{each:04X}" for each in StoreStatus} <= codes


def test_no_name_is_missing_from_a_table() -> None:
    """A class that the dictionary of names does not know would stand there as a UID twice."""
    assert not re.search(
        r"^\|[^|]*\b1\.2\.840\.10008[\d.]+ \| `1\.2\.840", document(), re.MULTILINE
    )


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)", document())
    assert links
    assert all((DOCUMENT.parent / link).is_file() for link in links)
