"""Whatever becomes of a step, the others run, and its rows end with how it ended."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tools.gpu_check.rows import Row, Verdict
from tools.gpu_check.running import run_steps, step_command
from tools.gpu_check.steps import STEPS, Step, run_step

SAYS = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from tools.gpu_check.rows import RowFile
    rows = RowFile(Path(sys.argv[1]) / f"{sys.argv[2]}.jsonl", sys.argv[2])
    rows.add("GPU", "name", "found")
    """
)
CRASHES = SAYS + "import ctypes; ctypes.string_at(0)"
HANGS = SAYS + "import threading; threading.Event().wait()"
FAILS = SAYS + "sys.exit('no such thing')"
SILENT = "pass"


def run(programs: dict[str, str], folder: Path, *, limit_s: float = 60.0) -> tuple[Row, ...]:
    def command(step: Step, out: Path) -> Sequence[str]:
        return [sys.executable, "-c", programs[step.name], str(out), step.name]

    steps = [Step(name=name, about="a step", module="none") for name in programs]
    said: list[str] = []
    return run_steps(steps, folder, limit_s=limit_s, say=said.append, command_of=command)


def test_a_step_that_ends_well_tells_how_long_it_took(tmp_path: Path) -> None:
    found, ended = run({"one": SAYS}, tmp_path)
    assert found.value == "found"
    assert (ended.what, ended.verdict) == ("took", Verdict.FIGURE)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (CRASHES, "was ended by SIGSEGV"),
        (FAILS, "ended with exit code 1; see one.log: no such thing"),
    ],
)
def test_a_step_that_crashes_keeps_what_it_found_and_the_next_one_runs(
    tmp_path: Path, program: str, reason: str
) -> None:
    rows = run({"one": program, "two": SAYS}, tmp_path)
    assert [row.value for row in rows if row.what == "name"] == ["found", "found"]
    (failed,) = [row for row in rows if row.verdict is Verdict.FAILED]
    assert failed.step == "one"
    assert reason in failed.value


def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    rows = run({"one": HANGS}, tmp_path, limit_s=3.0)
    assert rows[-1].verdict is Verdict.FAILED
    assert "did not end within 3 s" in rows[-1].value


def test_a_step_that_finds_nothing_has_failed(tmp_path: Path) -> None:
    (row,) = run({"one": SILENT}, tmp_path)
    assert row.verdict is Verdict.FAILED
    assert "found nothing" in row.value


def test_rows_of_an_earlier_run_are_not_taken_for_this_one(tmp_path: Path) -> None:
    run({"one": SAYS}, tmp_path)
    assert len(run({"one": SAYS}, tmp_path)) == 2


def test_every_step_is_started_by_its_name(tmp_path: Path) -> None:
    for step in STEPS:
        assert list(step_command(step, tmp_path))[1:5] == [
            "-m",
            "tools.gpu_check",
            "--step",
            step.name,
        ]
    assert len({step.name for step in STEPS}) == len(STEPS)


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_without_a_gpu_every_step_says_so_and_ends_well(
    no_gpu: Callable[[], None], tmp_path: Path, step: str
) -> None:
    no_gpu()
    assert run_step(step, tmp_path) == 0
    lines = (tmp_path / f"{step}.jsonl").read_text(encoding="utf-8").splitlines()
    assert '"subject": "GPU"' in lines[-1]
    assert '"verdict": "not here"' in lines[-1]
