"""The pins fulfil pyproject.toml on every Python and architecture, and name no index."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).parents[3]
PINS = ("device", "dev", "build", "pycuda", "lock")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
PLATFORMS = [
    {"python_version": version, "python_full_version": f"{version}.1", "platform_machine": machine}
    for version in ("3.10", "3.11", "3.12", "3.13")
    for machine in ("x86_64", "aarch64")
]
REMEDY = "run `make lock`"


def pin_lines(which: str) -> list[str]:
    """Lines of a pin file without comments, each joined with those that continue it."""
    text = (CHECKOUT / "requirements" / f"{which}.txt").read_text()
    without_comments = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    return without_comments.replace("\\\n", " ").splitlines()


def pins(which: str) -> list[Requirement]:
    """The requirements of a pin file without their hashes."""
    return [Requirement(HASH.sub("", line).strip()) for line in pin_lines(which)]


def asked_for(which: str) -> list[Requirement]:
    """What a pin file has to fulfil."""
    if which in {"build", "pycuda", "lock"}:
        lines = (CHECKOUT / "requirements" / f"{which}.in").read_text().splitlines()
        return [Requirement(line) for line in lines if not line.startswith("#")]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    more = project["optional-dependencies"]["dev"] if which == "dev" else []
    return [Requirement(line) for line in (*project["dependencies"], *more)]


def versions(requirements: list[Requirement], name: str, platform: dict[str, str]) -> list[str]:
    """The versions that pip would install on the platform."""
    return [
        next(iter(pin.specifier)).version
        for pin in requirements
        if canonicalize_name(pin.name) == canonicalize_name(name)
        and (pin.marker is None or pin.marker.evaluate(platform))
    ]


@pytest.mark.parametrize("which", PINS)
def test_every_line_is_one_exact_version_with_hashes(which: str) -> None:
    for line in pin_lines(which):
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+ ", line), f"not a pin: {line}"
        assert HASH.search(line), f"no hash: {line}"


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: "-".join(p.values()))
@pytest.mark.parametrize("which", PINS)
def test_each_requirement_has_one_fitting_pin(which: str, platform: dict[str, str]) -> None:
    pinned = pins(which)
    for requirement in asked_for(which):
        if requirement.marker and not requirement.marker.evaluate(platform):
            continue
        found = versions(pinned, requirement.name, platform)
        assert len(found) == 1, f"{len(found)} pins of {requirement.name} in {which}.txt: {REMEDY}"
        assert requirement.specifier.contains(found[0]), f"{requirement} is {found[0]}: {REMEDY}"


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: "-".join(p.values()))
def test_tests_run_with_the_versions_that_a_device_gets(platform: dict[str, str]) -> None:
    on_device, in_tests = pins("device"), pins("dev")
    for pin in on_device:
        on_it = versions(on_device, pin.name, platform)
        if on_it:
            assert versions(in_tests, pin.name, platform) == on_it, f"{pin.name}: {REMEDY}"
