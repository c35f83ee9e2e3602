"""What ``golden/studies.toml`` may say; the hostile ones are in the corpus."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from engines.golden_studies import GoldenOutcome, GoldenStudies, load_golden_studies
from engines.loading import load_package

TEXT = """
[[studies]]
folder = "gap"
outcome = "NOT_ANALYSED"
reason = "missing_slices"
"""
FINDING = {"key": "bright", "probability": 0.5}


def test_a_demonstration_may_have_no_studies(builder: Any) -> None:
    assert load_golden_studies(load_package(builder.write())) == ()


def test_a_study_is_all_files_of_its_folder(builder: Any) -> None:
    folder = builder.write()
    study = folder / "golden/studies/gap/series"
    study.mkdir(parents=True)
    (study / "1.dcm").write_bytes(b"one")
    (study.parent / "2.dcm").write_bytes(b"two")
    (folder / "golden/studies.toml").write_text(TEXT)
    (found,) = load_golden_studies(load_package(builder.seal()))
    assert found.study.outcome is GoldenOutcome.NOT_ANALYSED
    assert [file.read(10) for file in found.files] == [b"two", b"one"]


@pytest.mark.parametrize(
    "study",
    [
        {"outcome": "SUSPECTED"},
        {"outcome": "SUSPECTED", "reason": "no_images", "findings": [FINDING]},
        {"outcome": "NOT_ANALYSED"},
        {"outcome": "NOT_ANALYSED", "reason": "no_images", "findings": [FINDING]},
        {"outcome": "FAILED", "reason": "engine_failed"},
        {"outcome": "SUSPECTED", "findings": [FINDING, FINDING]},
        {"outcome": "SUSPECTED", "findings": [FINDING | {"probability": 1.1}]},
        {"outcome": "SUSPECTED", "findings": [FINDING | {"tolerance": 0}]},
        {"outcome": "SUSPECTED", "findings": [FINDING], "folder": "../x"},
        {"outcome": "SUSPECTED", "findings": [FINDING], "phantom": "head-ct"},
    ],
    ids=str,
)
def test_a_study_that_says_too_much_or_too_little_is_refused(study: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GoldenStudies.model_validate({"studies": [{"folder": "first"} | study]})
