"""Writes the seeds of the corpus; what a fuzzer found and was worth keeping stands beside them.

python tests/fuzz/make_corpus.py
"""

from __future__ import annotations

import re
import struct
import sys
import zlib
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # for fuzz and simulators

from fuzz.fuzz_data_set import SYNTAXES
from simulators.misbehaviours import SECTIONS
from simulators.rogue_modality import explicit_element, make_instance

CORPUS = Path(__file__).parent / "corpus"
_MAX_SEED_BYTES = 4096
_UNDEFINED = 0xFFFFFFFF


def seeds() -> dict[str, bytes]:
    """Path within the corpus to content; the same at every call."""
    found = {f"pdu/{_slug(name)}": sent for name, sent in _streams() if _is_small(sent)}
    for name, (syntax, data_set) in _data_sets().items():
        found[f"data_set/{_slug(name)}"] = bytes([SYNTAXES.index(syntax)]) + data_set
    return found


def _is_small(sent: bytes) -> bool:
    return len(sent) <= _MAX_SEED_BYTES


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60]


def _streams() -> list[tuple[str, bytes]]:
    image = make_instance(1, pixel_bytes=64)
    found = [("orderly store", b"".join(image.message(size=100)))]
    found += [(case.what, case.sent) for section in SECTIONS.values() for case in section]
    return found


def _data_sets() -> dict[str, tuple[str, bytes]]:
    implicit, explicit, big_endian, deflated, jpeg = SYNTAXES
    image = make_instance(1, pixel_bytes=16).data_set
    item, item_end = struct.pack("<HHI", 0xFFFE, 0xE000, _UNDEFINED), b"\xfe\xff\x0d\xe0" + bytes(4)
    sequence_end = b"\xfe\xff\xdd\xe0" + bytes(4)
    sequence = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, _UNDEFINED)
    groups = sequence + item + explicit_element(0x00180050, b"DS", b"2.5 ") + item_end
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return {
        "image": (explicit, image),
        "image that is implicit": (implicit, _implicit()),
        "image that is explicit and says implicit": (implicit, image),
        "image that is big endian": (big_endian, _big_endian()),
        "image that is deflated": (deflated, packer.compress(image) + packer.flush()),
        "functional groups": (explicit, image[:-28] + groups + sequence_end + image[-28:]),
        "nesting": (explicit, (sequence + item) * 70),
        "fragments": (
            jpeg,
            image[:-28]
            + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, _UNDEFINED)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
            + sequence_end,
        ),
        "japanese": (
            explicit,
            explicit_element(0x00080005, b"CS", b"\\ISO 2022 IR 87")
            + image
            + explicit_element(0x00100010, b"PN", b"A^B=\x1b$B;3ED\x1b(B"),
        ),
        "nothing": (explicit, b""),
    }


def _implicit() -> bytes:
    uid = b"1.2.3.4\0"
    return b"".join(
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(uid)) + uid
        for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
    )


def _big_endian() -> bytes:
    uid = b"1.2.3.4\0"
    return b"".join(
        struct.pack(">HH2sH", tag >> 16, tag & 0xFFFF, b"UI", len(uid)) + uid
        for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
    )


if __name__ == "__main__":
    for name, content in seeds().items():
        (CORPUS / name).parent.mkdir(parents=True, exist_ok=True)
        (CORPUS / name).write_bytes(content)
