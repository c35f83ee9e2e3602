"""On the GPU machine: puts parts together and installs what they bring. Needs Python alone.

    python3 tools/gpu_check/receive.py PART... --into SITE

Parts may come one at a time: what is not complete yet waits in SITE.parts. Every file is compared
with the digest that ``prepare`` wrote.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

MANIFEST = "part.json"
_CHUNK = 1 << 20


class PartError(Exception):
    """A part is not what ``prepare`` made."""


def main(arguments: list[str] | None = None) -> int:
    """Receive parts; install every wheel that is complete."""
    parser = argparse.ArgumentParser(description="Installs what the parts of `prepare` bring.")
    parser.add_argument("parts", nargs="+", type=Path, help="folders that `prepare` made")
    parser.add_argument("--into", required=True, type=Path, help="for PYTHONPATH")
    chosen = parser.parse_args(arguments)
    waiting = chosen.into.with_name(f"{chosen.into.name}.parts")
    try:
        for part in chosen.parts:
            take(part, waiting)
        for wheel in complete(waiting):
            install(wheel, chosen.into)
    except PartError as error:
        print(f"receive: {error}", file=sys.stderr)
        return 1
    left = missing(waiting)
    print(f"installed into {chosen.into}: export PYTHONPATH={chosen.into}:.")
    for name in left:
        print(f"not complete yet: {name}")
    return 0


def take(part: Path, waiting: Path) -> None:
    """Copy a part's files, each compared with its digest.

    Raises:
        PartError: A file is missing or was changed.
    """
    waiting.mkdir(parents=True, exist_ok=True)
    for entry in _manifest(part):
        source = part / entry["name"]
        if not source.is_file() or digest(source) != entry["sha256"]:
            raise PartError(f"{source} is not what was sent: carry this part again")
        shutil.copyfile(source, waiting / entry["name"])
        (waiting / f"{entry['name']}.json").write_text(json.dumps(entry), encoding="utf-8")


def complete(waiting: Path) -> list[Path]:
    """Join pieces that are all here, and return the wheels that can be installed.

    Raises:
        PartError: The pieces do not make the file that was cut.
    """
    for whole, entries in _by_whole(waiting).items():
        if len(entries) < entries[0]["pieces"] or (waiting / whole).is_file():
            continue
        joined = waiting / f"{whole}.joining"
        with joined.open("wb") as out:
            for entry in sorted(entries, key=lambda each: int(each["piece"])):
                with (waiting / entry["name"]).open("rb") as piece:
                    shutil.copyfileobj(piece, out, _CHUNK)
        if {digest(joined)} != {entry["whole_sha256"] for entry in entries}:
            raise PartError(f"the pieces do not make {whole}: carry its parts again")
        joined.rename(waiting / whole)
    return sorted(waiting.glob("*.whl"))


def missing(waiting: Path) -> list[str]:
    """Files of which a piece is yet to come."""
    return sorted(whole for whole in _by_whole(waiting) if not (waiting / whole).is_file())


def install(wheel: Path, into: Path) -> None:
    """Unpack a wheel where PYTHONPATH will point.

    Raises:
        PartError: pip refuses it, for this Python perhaps.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-compile", "--disable-pip-version-check", "--upgrade", "--target", str(into)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, check=False, text=True)
    if done.returncode:
        raise PartError(f"pip does not install {wheel.name}: {done.stderr.strip()}")
    print(f"{wheel.name}: installed")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    made = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()


def _by_whole(waiting: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(waiting.glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(entry["whole"], []).append(entry)
    return found


def _manifest(part: Path) -> list[dict[str, Any]]:
    path = part / MANIFEST
    if not path.is_file():
        raise PartError(f"{part} is no part: it has no {MANIFEST}")
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    for entry in entries:
        # Nothing is written elsewhere than into the folder.
        if not all(Path(entry[key]).name == entry[key] for key in ("name", "whole")):
            raise PartError(f"{path} names a file outside its folder")
    return entries


if __name__ == "__main__":
    sys.exit(main())
