"""Nothing in the tree names a package registry or a place on the machine where it was written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
# One letter of each stands in brackets so that this file does not find itself.
REGISTRIES = re.compile(
    rb"py[p]i\.(org|nvidia|python)|python[h]osted\.org|registry\.npm[j]s|deb\.debi[a]n\.org"
    rb"|security\.debi[a]n\.org|(archive|security|ports)\.ubunt[u]\.com|conda\.anacond[a]\.org"
)
MACHINE_PATHS = re.compile(rb"/wor[k]/(main|shared)|/tmp/prob[e]|/opt/(pyp[i]|wheel[s])\b|/roo[t]/")
NEIGHBOUR_FOLDER = re.compile(rb"\.\./share[d]\b")
# The build machine's folder of real files is that machine's business.
MAY_NAME_NEIGHBOUR = ".ci/run"


def tree() -> list[Path]:
    """The files that git tracks, or would."""
    # A checkout may belong to another user, as it does in many containers.
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    paths = (CHECKOUT / name for name in listing.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def places(pattern: re.Pattern[bytes], *, leave_out: str = "") -> list[str]:
    """Where in the tree the pattern is found, as path:line."""
    return [
        f"{path.relative_to(CHECKOUT)}:{number}"
        for path in tree()
        if path.relative_to(CHECKOUT).as_posix() != leave_out
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1)
        if pattern.search(line)
    ]


def test_tree_names_no_package_registry() -> None:
    assert places(REGISTRIES) == []


def test_tree_names_no_path_of_a_machine() -> None:
    assert places(MACHINE_PATHS) == []


def test_only_the_build_machines_script_looks_beside_the_checkout() -> None:
    assert places(NEIGHBOUR_FOLDER, leave_out=MAY_NAME_NEIGHBOUR) == []
    assert places(NEIGHBOUR_FOLDER)


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        (REGISTRIES, ("https://py", "pi.org/simple")),
        (REGISTRIES, ("http://deb.", "debian.org")),
        (MACHINE_PATHS, ("cd /work", "/main")),
        (NEIGHBOUR_FOLDER, ("cat ..", "/shared/data")),
    ],
)
def test_what_must_not_stand_in_the_tree_would_be_found(
    pattern: re.Pattern[bytes], parts: tuple[str, ...]
) -> None:
    assert pattern.search("".join(parts).encode())
