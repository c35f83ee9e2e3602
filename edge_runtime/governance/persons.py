"""Names of people, in the form in which two of them are compared."""

from __future__ import annotations

import unicodedata

from edge_runtime.governance.errors import NotAllowedError

MAX_NAME_CHARACTERS = 100
_LEAST_LETTERS = 2


def clean_line(text: str, *, what: str, limit: int) -> str:
    """Return one line of text without stray white space.

    Raises:
        NotAllowedError: It is too long, or holds characters that nobody sees.
    """
    line = " ".join(unicodedata.normalize("NFC", text).split())
    if len(line) > limit:
        raise NotAllowedError(f"{what} has more than {limit} characters: shorten it")
    # Cc, Cf, Co, Cs, Cn: invisible, private or no characters; two names that look alike would
    # differ by one.
    if any(unicodedata.category(character).startswith("C") for character in line):
        raise NotAllowedError(f"{what} holds characters that cannot be seen: type it again")
    return line


def clean_person(name: str) -> str:
    """Return a person's name as it is shown.

    Raises:
        NotAllowedError: It is no name.
    """
    person = clean_line(name, what="the person's name", limit=MAX_NAME_CHARACTERS)
    if sum(character.isalpha() for character in person) < _LEAST_LETTERS:
        raise NotAllowedError("the person's name needs letters: give the full name")
    return person


def person_key(person: str) -> str:
    """Return what two spellings of one name share: case, white space and Unicode form aside."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", person).casefold())
    return " ".join(folded.split())
