from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import files
from pathlib import Path

import pytest

from edge_runtime.pipeline.decode import PLUGINS
from tools.doctor.checks_codecs import FAMILIES, CodecFamily, check_codec
from tools.doctor.findings import Finding, Status

Examine = Callable[..., Mapping[str, Finding]]

J2K = next(family for family in FAMILIES if family.key == "jpeg_2000")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_every_codec_decodes_its_frame_here(family: CodecFamily) -> None:
    found = check_codec(family)
    assert found.status is Status.OK, found


def test_every_plugin_that_the_pipeline_takes_is_known_with_its_package() -> None:
    chosen = {(syntax, name) for syntax, names in PLUGINS.items() for name in names}
    for family in FAMILIES:
        assert set(PLUGINS[family.syntax]) <= set(family.packages)
        chosen -= {(syntax, name) for syntax, name in chosen if name in family.packages}
    assert not chosen


def test_a_codec_that_breaks_fails_and_names_its_package() -> None:
    found = check_codec(replace(J2K, frame=J2K.frame[:40]))
    assert found.status is Status.FAILED
    assert "pylibjpeg-openjpeg" in (found.remedy or "")


def test_a_codec_that_decodes_wrongly_fails() -> None:
    lossless = next(family for family in FAMILIES if family.key == "rle")
    frame = lossless.frame[:-2] + b"\x00\x00"
    assert "wrongly" in check_codec(replace(lossless, frame=frame)).found


def path_without(folder: Path, distribution: str) -> list[str]:
    """This process's import path, with views of its site-packages that lack one distribution."""
    hidden = {path.parts[0] for path in files(distribution) or ()}
    assert hidden
    return [
        str(_view(Path(name), folder / f"site-{number}", hidden))
        if Path(name).name == "site-packages"
        else name
        for number, name in enumerate(sys.path)
    ]


def _view(source: Path, view: Path, hidden: set[str]) -> Path:
    view.mkdir()
    for entry in source.iterdir():
        if entry.name not in hidden:
            (view / entry.name).symlink_to(entry)
    return view


@pytest.mark.parametrize(
    ("distribution", "verdicts"),
    [
        ("python-gdcm", {"jpeg_lossless": Status.FAILED, "jpeg_baseline": Status.FAILED}),
        ("pylibjpeg-openjpeg", {"htj2k": Status.FAILED, "jpeg_2000": Status.WARNING}),
        ("pyjpegls", {"jpeg_ls": Status.WARNING}),
        ("pylibjpeg-rle", {"rle": Status.WARNING}),
    ],
)
def test_a_codec_that_is_not_installed_is_named(
    examine_apart: Examine,
    tmp_path: Path,
    state_dir: Path,
    distribution: str,
    verdicts: Mapping[str, Status],
) -> None:
    paths = path_without(tmp_path, distribution)
    answers = examine_apart(state_dir, paths=paths)
    codecs = {
        name.removeprefix("codec."): found
        for name, found in answers.items()
        if name.startswith("codec.")
    }
    assert len(codecs) == len(FAMILIES)
    missing = {key: each for key, each in codecs.items() if each.status is not Status.OK}
    assert {key: each.status for key, each in missing.items()} == verdicts
    assert all(distribution in (each.remedy or "") for each in missing.values())
