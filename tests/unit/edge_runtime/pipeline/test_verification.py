"""A good package passes every check; golden studies go through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulators.ct_slices import write_ct_slice
from simulators.golden_studies import write_golden_studies
from simulators.model_package import write_model_package

from edge_runtime.pipeline.answers import Answer, CheckName, CheckStatus
from edge_runtime.pipeline.verification import run_checks
from engines.contract import Backend, EngineOptions
from engines.writing import write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package for patients, with a study of each kind."""
    folder = tmp_path / "package"
    write_model_package(folder)
    change(folder, "package.toml", "demonstration = true", "demonstration = false")
    write_golden_studies(folder)
    write_checksums(folder)
    return folder


def change(folder: Path, relative: str, old: str, new: str) -> None:
    path = folder / relative
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    write_checksums(folder)


def checked(folder: Path) -> list[Answer]:
    return list(run_checks(folder, Backend.ONNXRUNTIME, EngineOptions()))


def test_a_package_with_golden_studies_passes_every_check_in_order(folder: Path) -> None:
    answers = checked(folder)
    assert [answer.name for answer in answers] == list(CheckName)
    assert {answer.status for answer in answers} == {CheckStatus.OK}
    assert answers[-1].found == "3 studies come out as their maker saw"
    deviation = {answer.name: answer.deviation for answer in answers}[CheckName.PARITY]
    assert deviation is not None
    assert deviation < 1e-5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("probability = 0.9608", "probability = 0.9", "'bright' is 0.9608, its maker saw 0.9000"),
        ("missing_slices", "gantry_tilt", "NOT_ANALYSED (missing_slices), its maker saw"),
    ],
    ids=["probability", "reason"],
)
def test_a_study_that_comes_out_otherwise_refuses_the_package(
    folder: Path, old: str, new: str, words: str
) -> None:
    change(folder, "golden/studies.toml", old, new)
    last = checked(folder)[-1]
    assert (last.name, last.status, last.error) == (
        CheckName.GOLDEN_STUDIES,
        CheckStatus.FAILED,
        "GoldenFileError",
    )
    assert words in last.found


def test_a_study_of_another_outcome_refuses_the_package(folder: Path) -> None:
    for number in (1, 2, 3, 4):
        write_ct_slice(folder / f"golden/studies/dark/{number}.dcm", number=number, hu=90)
    write_checksums(folder)
    assert "'dark' comes out as SUSPECTED, its maker saw NOT_SUSPECTED" in checked(folder)[-1].found


def test_a_demonstration_may_come_without_golden_studies(tmp_path: Path) -> None:
    write_model_package(tmp_path / "package")
    last = checked(tmp_path / "package")[-1]
    assert (last.name, last.status) == (CheckName.GOLDEN_STUDIES, CheckStatus.WARNING)


def test_a_package_for_larger_machines_passes_with_a_warning(folder: Path) -> None:
    requires = '[requires]\nruntime = "99.0.0"\nmemory_mib = 65536\n\n[selection]'
    change(folder, "package.toml", "[selection]", requires)
    answers = {answer.name: answer for answer in checked(folder)}
    found = answers[CheckName.REQUIREMENTS]
    assert found.status is CheckStatus.WARNING
    assert "needs edge-triage 99.0.0" in found.found
    assert answers[CheckName.GOLDEN_STUDIES].status is CheckStatus.OK


def test_the_first_check_that_fails_ends_the_list(folder: Path) -> None:
    (folder / "card.toml").write_text("")
    (answer,) = checked(folder)
    assert (answer.name, answer.error) == (CheckName.CHECKSUMS, "PackageIntegrityError")
