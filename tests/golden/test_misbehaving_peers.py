"""The documentation's tables of misbehaviour are those that the tests play."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # for simulators

from simulators.misbehaviours import GOES_ON, SECTIONS, Misbehaviour

_PAGE = Path(__file__).parents[2] / "docs/node/misbehaving-peers.md"
_BEGIN, _END = "<!-- begin of the tables -->\n", "<!-- end of the tables -->\n"
_MEANINGS = {
    "0000": "0000, stored",
    "0122": "0122, SOP class not supported",
    "A900": "A900, data set does not match",
    "C000": "C000, cannot understand",
}


def tables() -> str:
    """All sections, in Markdown."""
    return "\n".join(line for title, rows in SECTIONS.items() for line in _section(title, rows))


def _section(title: str, rows: list[Misbehaviour]) -> Iterator[str]:
    yield f"### {title}\n"
    yield "| the peer sends | the node answers |"
    yield "|---|---|"
    for row in rows:
        answers = [_MEANINGS.get(each, each) for each in row.answers]
        if row.answers == (GOES_ON,):
            answers = [f"nothing, and {GOES_ON}"]
        yield f"| {row.what} | {'; '.join(answers)} |"
    yield ""


def test_page_has_the_rows_that_the_tests_play() -> None:
    """`python tests/golden/test_misbehaving_peers.py` writes them anew."""
    _, begin, rest = _PAGE.read_text().partition(_BEGIN)
    inside, end, _ = rest.partition(_END)
    assert begin
    assert end
    assert inside.strip() == tables().strip()


def _rewrite() -> None:
    before, begin, rest = _PAGE.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    _PAGE.write_text(f"{before}{begin}\n{tables()}\n{end}{after}")


if __name__ == "__main__":
    _rewrite()
