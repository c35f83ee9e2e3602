"""docs/licences.md lists every pinned distribution, and a device gets permissive ones only."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

CHECKOUT = Path(__file__).parents[3]
DOCUMENT = CHECKOUT / "docs" / "licences.md"
PERMISSIVE = {
    *("MIT", "MIT-0", "MIT-CMU", "BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC"),
    "PSF-2.0",
}
# Copyleft for the file that is changed, not for what uses it: tools of ours may have it.
ONLY_IN_TESTS = {"MPL-2.0"}
VENDORS_OWN = {
    "tensorrt-rtx",
    "tensorrt-rtx-cu13",
    "tensorrt-rtx-cu13-bindings",
    "tensorrt-rtx-cu13-libs",
}
LIBRARY = re.compile(r"\.(so(\.\d+)*|dll|dylib|a|whl|plan|engine|cubin|ptx)$")
REMEDY = "run `make licences`"


def load_script() -> ModuleType:
    """requirements/licences.py, which is no package."""
    place = CHECKOUT / "requirements" / "licences.py"
    spec = importlib.util.spec_from_file_location("licences", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules["licences"] = module
    spec.loader.exec_module(module)
    return module


licences = load_script()


def listed() -> dict[str, str]:
    return cast("dict[str, str]", licences.written(DOCUMENT.read_text(encoding="utf-8")))


def pinned(*files: str) -> set[str]:
    return {name for which in files for name in licences.pinned(which)}


def choices(licence: str) -> set[str]:
    """The licences of which one suffices."""
    return set(licence.split(" OR "))


def test_document_is_what_the_pins_and_their_metadata_say() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert licences.renewed(document) == document, REMEDY


def test_every_pinned_distribution_is_listed_and_no_other() -> None:
    files = {path.stem for path in (CHECKOUT / "requirements").glob("*.txt")}
    assert files == {which for table in licences.TABLES for which in table.files}
    assert listed().keys() == pinned(*files), REMEDY


def test_a_device_gets_permissive_licences_only() -> None:
    other = {n: listed()[n] for n in pinned("device") if not choices(listed()[n]) & PERMISSIVE}
    assert other == {}


def test_only_tensorrt_rtx_stands_under_its_vendors_own_licence() -> None:
    others = {
        name: licence
        for name, licence in listed().items()
        if not choices(licence) & (PERMISSIVE | ONLY_IN_TESTS)
    }
    assert others == dict.fromkeys(VENDORS_OWN, "Proprietary")


def test_every_extra_that_is_not_pinned_is_listed() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in ("gpu", "rtx", "train"):
        (line,) = re.findall(rf"^{extra} = \[(.*)\]$", project, flags=re.MULTILINE)
        for name in re.findall(r'"([a-z0-9-]+)', line):
            assert f"| {extra} | {name} |" in document


def test_every_program_that_tests_start_is_named() -> None:
    document = DOCUMENT.read_text(encoding="utf-8").lower()
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    (listing,) = re.findall(r"^SYSTEM_PACKAGES \?= ((?:.*\\\n)*.*)$", makefile, flags=re.MULTILINE)
    for package in listing.replace("\\\n", " ").split():
        # mosquitto-clients, orthanc-dicomweb and cryptsetup-bin are parts of what is named.
        assert package.split("-", maxsplit=1)[0] in document, package


def test_readme_sends_the_reader_to_the_licences() -> None:
    assert "docs/licences.md" in (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_repository_holds_no_library_wheel_or_engine() -> None:
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert [name for name in done.stdout.split("\0") if LIBRARY.search(name)] == []


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        ({"License-Expression": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0"),
        ({"License": "Apache 2.0"}, "Apache-2.0"),
        ({"License": "x" * 5000, "Classifier": "License :: OSI Approved :: BSD License"}, "BSD"),
        ({"License": "LICENSE", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"Classifier": "Topic :: Software Development"}, None),
    ],
)
def test_licence_is_read_from_metadata(headers: dict[str, str], licence: str | None) -> None:
    metadata = Message()
    for key, value in headers.items():
        metadata[key] = value
    assert licences.licence_in(metadata) == licence


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    """Pin files with one distribution that is nowhere."""
    for table in licences.TABLES:
        for which in table.files:
            (tmp_path / f"{which}.txt").write_text("nowhere==1.0 \\\n    --hash=sha256:0\n")
    return tmp_path


def test_a_pin_that_nobody_knows_the_licence_of_is_an_error_with_a_remedy(pins: Path) -> None:
    with pytest.raises(licences.LicenceUnknownError, match="look its licence up"):
        licences.renewed(f"{licences.BEGIN}\n{licences.END}", pins)


def test_a_pin_that_is_not_installed_here_keeps_what_the_document_says(pins: Path) -> None:
    document = f"before {licences.BEGIN}\n| nowhere | ISC |\n{licences.END} after"
    renewed = licences.renewed(document, pins)
    assert renewed.count("| nowhere | ISC |") == 1
    assert renewed.startswith("before ")
    assert renewed.endswith(" after")
