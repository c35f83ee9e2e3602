"""The entry script: what it lists, refuses, writes and ends with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.gpu_check.command import main
from tools.gpu_check.steps import STEPS


def test_steps_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [step.name for step in STEPS]


def test_an_unknown_step_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "machine,nothing", "--out", str(tmp_path)]) == 2
    assert "there is no step nothing" in capsys.readouterr().err


def test_without_a_gpu_the_table_stands_and_says_that_nothing_ran(
    no_gpu: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_gpu()
    assert main(["--steps", "machine", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| machine | GPU" in printed
    assert printed.rstrip().endswith("There is no usable GPU here: nothing of this was run on one.")
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.startswith("GPU check of 20")
    assert "processor" in report


def test_who_needs_a_gpu_is_told_by_the_exit_code(
    no_gpu: Callable[[], None], tmp_path: Path
) -> None:
    no_gpu()
    assert main(["--steps", "machine", "--out", str(tmp_path), "--need-gpu"]) == 1
