"""Writes the tables of docs/licences.md anew: every pinned distribution and its licence.

A licence is what the distribution's own metadata says, in SPDX's spelling where it has one. Not
every pin is installed on every Python: one that is not here keeps what the document says of it, and
a new one of that kind is written in by hand, once.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
DOCUMENT = CHECKOUT / "docs" / "licences.md"
PINS = CHECKOUT / "requirements"
BEGIN = "<!-- tables: `make licences` writes them -->"
END = "<!-- end of the tables -->"
LONGEST_NAME = 60
"""Some put the whole text where the licence's name belongs."""

SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Other/Proprietary License": "Proprietary",
}
UNTOLD = {
    "atheris": "Apache-2.0",  # only its LICENSE file says so
    "dicomweb-client": "MIT",  # says "LICENSE" where the name belongs
}


class LicenceUnknownError(Exception):
    """Neither metadata nor document say what a pinned distribution's licence is."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Which pins stand together in the document."""

    title: str
    files: tuple[str, ...]


TABLES = (
    Table(title="What a device gets", files=("device",)),
    Table(title="What developing, testing and building add", files=("dev", "build", "lock")),
    Table(title="What is compiled where the headers of CUDA are", files=("pycuda",)),
)


def pinned(which: str, folder: Path = PINS) -> dict[str, set[str]]:
    """The distributions of a pin file and their versions, which differ between Pythons."""
    found: dict[str, set[str]] = {}
    text = (folder / f"{which}.txt").read_text(encoding="utf-8")
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE):
        found.setdefault(name.lower(), set()).add(version)
    return found


def spelled(text: str) -> str:
    """A licence's name in one spelling."""
    return SPELLINGS.get(text, text)


def first(metadata: importlib.metadata.PackageMetadata, key: str) -> str:
    """The first value of a key, empty without one."""
    return next(iter(metadata.get_all(key) or ()), "")


def licence_in(metadata: importlib.metadata.PackageMetadata) -> str | None:
    """What a distribution says of itself: an SPDX expression, a name, or a classifier."""
    told = first(metadata, "License-Expression") or first(metadata, "License")
    if told and len(told) <= LONGEST_NAME and told != "LICENSE":
        return spelled(told)
    classifiers = [
        text.rsplit(" :: ", 1)[-1]
        for text in metadata.get_all("Classifier") or ()
        if text.startswith("License :: ") and not text.endswith("DFSG approved")
    ]
    return " AND ".join(spelled(text) for text in classifiers) or None


def installed_licence(name: str, versions: set[str]) -> str | None:
    """The licence of a distribution that stands here at a pinned version."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return (UNTOLD.get(name) or licence_in(metadata)) if metadata["Version"] in versions else None


def written(document: str) -> dict[str, str]:
    """Names and licences in the tables of the document."""
    tables = document.partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| ([^ |]+) \| ([^|]+) \|$", tables, flags=re.MULTILINE)
    return {name: licence for name, licence in rows if name != "distribution"}


def lines(known: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The tables; what stood in one is not repeated in the next.

    Raises:
        LicenceUnknownError: A distribution has no licence here and had none in the document.
    """
    seen: set[str] = set()
    for table in TABLES:
        pins: dict[str, set[str]] = {}
        for which in table.files:
            for name, versions in pinned(which, folder).items():
                pins.setdefault(name, set()).update(versions)
        yield from ("", f"### {table.title}", "", "| distribution | licence |", "|---|---|")
        for name in sorted(pins.keys() - seen):
            licence = installed_licence(name, pins[name]) or known.get(name)
            if licence is None:
                raise LicenceUnknownError(
                    f"{name} is pinned but not installed here: look its licence up, write the row "
                    f"`| {name} | LICENCE |` into docs/licences.md, and run `make licences` again"
                )
            yield f"| {name} | {licence} |"
        seen |= pins.keys()


def renewed(document: str, folder: Path = PINS) -> str:
    """The document with its tables as they should be.

    Raises:
        LicenceUnknownError: See ``lines``.
    """
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(lines(written(document), folder))
    return f"{before}{BEGIN}\n{tables}\n\n{END}{after}"


def main() -> int:
    """Write the document; say what changed."""
    old = DOCUMENT.read_text(encoding="utf-8")
    try:
        new = renewed(old)
    except LicenceUnknownError as error:
        print(error, file=sys.stderr)
        return 1
    DOCUMENT.write_text(new, encoding="utf-8")
    print(f"{DOCUMENT.name}: {'written anew' if new != old else 'as it was'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
