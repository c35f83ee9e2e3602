"""Identities that occur nowhere else, planted in all that a peer sends; and the search for them.

A leak may be disguised: the search knows the usual encodings, and the usual hashes of each value.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote

from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.tag import Tag

TOKEN = "QCNRYZ"
FOREIGN_TOKEN = "QÇÑRÝZ"
UID_ROOT = "2.25.31415926535897"
DATE, TIME, AGE, NUMBER = "18930417", "030917.271828", "093Y", "731.42857"


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data).digest()


def _blake2b(size: int, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


_NEEDLES = (
    TOKEN,
    FOREIGN_TOKEN,
    UID_ROOT,
    DATE,
    "1893-04-17",
    TIME,
    "03:09:17.271828",
    AGE,
    NUMBER,
)
_VALUES: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(("AE", "CS", "SH", "LO", "ST", "LT", "UC", "UT", "UR"), TOKEN.__add__),
    "PN": lambda tag: f"{TOKEN}{tag}^{TOKEN}",
    "UI": lambda tag: f"{UID_ROOT}.{int(tag, 16)}",
    "DA": lambda _tag: DATE,
    "TM": lambda _tag: TIME,
    "DT": lambda _tag: f"{DATE}{TIME}",
    "AS": lambda _tag: AGE,
}
_NUMBERS = ("PatientWeight", "PatientSize")
_ESSENTIAL = {"SpecificCharacterSet", "PixelData"}
_HASHES: tuple[Callable[[bytes], bytes], ...] = (
    *(partial(_digest, name) for name in ("md5", "sha1", "sha256", "sha512")),
    *(partial(_blake2b, size) for size in (8, 12, 16, 20, 32, 64)),
)
_HASH_LETTERS = 12
"""What is compared of a hash: it may have been cut short."""
_MIN_DISGUISED = 6
"""Hexadecimal and Base64 of shorter needles occur by chance."""


class Canaries:
    """Plants identities, remembers each, and finds them again."""

    def __init__(self) -> None:
        self.values: set[str] = {TOKEN, FOREIGN_TOKEN, DATE, TIME}

    def note(self, value: str) -> str:
        """Remember a value that a test planted itself."""
        self.values.add(value)
        return value

    def plant(self, ds: Dataset) -> None:
        """Fill every attribute of the standard that takes text, dates or UIDs and is not there."""
        for number, (vr, _, _, _, keyword) in DicomDictionary.items():
            tag = Tag(number)
            make = _VALUES.get(vr)
            if make is None or tag.group < 8 or keyword in _ESSENTIAL or tag in ds:
                continue
            ds.add_new(tag, vr, self.note(make(f"{number:08X}")))
        for keyword in _NUMBERS:
            setattr(ds, keyword, self.note(NUMBER))
        nested = Dataset()
        nested.AccessionNumber = self.note(f"{TOKEN}NESTED")
        ds.RequestAttributesSequence = [nested]
        ds.add_new(0x00090010, "LO", self.note(f"{TOKEN}PRIVATE"))
        ds.add_new(0x00091001, "LO", self.note(f"{TOKEN}PRIVATEVALUE"))

    def find(self, text: bytes) -> tuple[str, ...]:
        """Return what of the canaries stands in ``text``, with its surroundings; () is well."""
        found = [
            f"{needle!r} as {text[max(0, place - 60) : place + 60]!r}"
            for needle in _NEEDLES
            for disguise in _disguises(needle)
            if (place := _place_of(disguise, text)) >= 0
        ]
        return (*found, *self._hashes_in(text))

    def _hashes_in(self, text: bytes) -> Iterator[str]:
        hexadecimal: dict[bytes, str] = {}
        in_base64: dict[bytes, str] = {}
        for value in self.values:
            for encoded in {value.encode(), value.encode("latin-1")}:
                for hash_of in _HASHES:
                    digest = hash_of(encoded)
                    hexadecimal[digest.hex().encode()[:_HASH_LETTERS]] = value
                    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
                        in_base64[alphabet(digest)[:_HASH_LETTERS]] = value
        for run in re.findall(rb"[0-9a-f]{12,}", text.lower()):
            for start in range(len(run) - _HASH_LETTERS + 1):
                letters = run[start : start + _HASH_LETTERS]
                if letters in hexadecimal:
                    yield f"hash of {hexadecimal[letters]!r}: {letters!r}"
        for run in re.findall(rb"[0-9A-Za-z+/_-]{12,}", text):
            if run[:_HASH_LETTERS] in in_base64:
                yield f"hash of {in_base64[run[:_HASH_LETTERS]]!r} in Base64"


def _place_of(needle: bytes, text: bytes) -> int:
    """Find letters of any case; Base64 has both."""
    return text.lower().find(needle.lower())


def _disguises(needle: str) -> set[bytes]:
    forms = {
        needle.encode(),
        needle.encode("latin-1"),
        needle.encode("utf-16-le"),
        json.dumps(needle)[1:-1].encode(),
        ascii(needle)[1:-1].encode(),
        quote(needle).encode(),
        quote(needle.encode("latin-1")).encode(),
    }
    if len(needle) >= _MIN_DISGUISED:
        for encoded in {needle.encode(), needle.encode("latin-1"), needle.lower().encode()}:
            forms.add(encoded.hex().encode())
            forms.update(_base64_cores(encoded))
    return forms


def _base64_cores(encoded: bytes) -> Iterator[bytes]:
    """Yield the letters that are the same whatever stands before and after."""
    for before in range(3):
        letters = base64.b64encode(b"\0" * before + encoded + b"\0\0")
        first = -(-before * 8 // 6)
        last = (before + len(encoded)) * 8 // 6
        yield letters[first:last]
