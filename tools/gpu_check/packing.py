"""Distributes files over parts of a largest size; a file that is larger is cut into pieces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.gpu_check.receive import MANIFEST, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a part: a whole one, or a piece; as ``receive`` reads it."""

    name: str
    sha256: str
    whole: str
    whole_sha256: str
    piece: int
    pieces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Some bytes of a file, for one part."""

    path: Path
    start: int
    size: int
    piece: int
    pieces: int

    @property
    def name(self) -> str:
        """In the part."""
        return self.path.name if self.pieces == 1 else f"{self.path.name}.piece-{self.piece:02}"


def plan_parts(files: Iterable[Path], most_bytes: int) -> tuple[tuple[Slice, ...], ...]:
    """Distribute files, the largest first, into as few parts as that gives.

    Raises:
        ValueError: ``most_bytes`` is less than 1.
    """
    if most_bytes < 1:
        raise ValueError(f"a part of {most_bytes} bytes holds nothing")
    slices = [piece for path in files for piece in _cut(path, most_bytes)]
    parts: list[list[Slice]] = []
    for each in sorted(slices, key=lambda one: (-one.size, one.name)):
        for part in parts:
            if sum(held.size for held in part) + each.size <= most_bytes:
                part.append(each)
                break
        else:
            parts.append([each])
    return tuple(tuple(part) for part in parts)


def write_parts(parts: Sequence[Sequence[Slice]], folder: Path) -> list[Path]:
    """Write each part into a folder of its own: ``part-1``, ``part-2``, ..."""
    made = []
    for number, part in enumerate(parts, start=1):
        place = folder / f"part-{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        entries = [_write(each, place) for each in part]
        manifest = json.dumps([asdict(entry) for entry in entries], indent=1)
        (place / MANIFEST).write_text(manifest, encoding="utf-8")
        made.append(place)
    return made


def _cut(path: Path, most_bytes: int) -> list[Slice]:
    size = path.stat().st_size
    pieces = max(-(-size // most_bytes), 1)
    return [
        Slice(
            path=path,
            start=number * most_bytes,
            size=min(most_bytes, size - number * most_bytes),
            piece=number,
            pieces=pieces,
        )
        for number in range(pieces)
    ]


def _write(each: Slice, place: Path) -> Entry:
    target = place / each.name
    with each.path.open("rb") as source:
        source.seek(each.start)
        target.write_bytes(source.read(each.size))
    return Entry(
        name=each.name,
        sha256=digest(target),
        whole=each.path.name,
        whole_sha256=digest(each.path),
        piece=each.piece,
        pieces=each.pieces,
    )
