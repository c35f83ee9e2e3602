"""What a hostile package is: a good one, one thing of it spoilt, and how it must be refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.checksums import CHECKSUMS
from engines.loading import EVALUATION_FILE, MODEL_FILE
from engines.writing import write_checksums


@dataclass(frozen=True, slots=True, kw_only=True)
class HostilePackage:
    """One of the corpus."""

    name: str
    spoil: Callable[[Path], object]
    """Turns the good package in a folder, in a folder of its own, into this one."""
    error: str
    """Class of the refusal; with "or" where that depends on a library's version."""
    reason: str
    """A part of its text."""


def replaced(relative: str, content: bytes) -> Callable[[Path], None]:
    """Give one file another content, and seal the package again."""

    def spoil(folder: Path) -> None:
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        write_checksums(folder)

    return spoil


def edited(relative: str, old: str, new: str) -> Callable[[Path], None]:
    """Change a text, and seal the package again."""

    def spoil(folder: Path) -> None:
        text = (folder / relative).read_text()
        assert old in text, f"{old} is not in {relative}"
        replaced(relative, text.replace(old, new).encode())(folder)

    return spoil


def with_model(content: bytes, *, file: str = MODEL_FILE) -> Callable[[Path], None]:
    """Put another model into the package, as its maker would."""

    def spoil(folder: Path) -> None:
        evaluated(model_sha256=hashlib.sha256(content).hexdigest())(folder)
        replaced(file, content)(folder)

    return spoil


def evaluated(**changes: Any) -> Callable[[Path], None]:
    """Change what the evaluation says."""

    def spoil(folder: Path) -> None:
        tables = json.loads((folder / EVALUATION_FILE).read_text()) | changes
        replaced(EVALUATION_FILE, json.dumps(tables).encode())(folder)

    return spoil


def listed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the listing itself."""

    def spoil(folder: Path) -> None:
        path = folder / CHECKSUMS
        path.write_bytes(change(path.read_bytes()))

    return spoil
