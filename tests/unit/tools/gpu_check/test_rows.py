"""Rows outlive the process that found them, and the short table leaves out what is well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.gpu_check.rows import (
    Row,
    RowFile,
    Verdict,
    number,
    read_rows,
    short_table,
    summary,
    table,
)


@pytest.fixture
def rows(tmp_path: Path) -> RowFile:
    return RowFile(tmp_path / "step.jsonl", "step")


def read(tmp_path: Path) -> tuple[Row, ...]:
    return read_rows(tmp_path / "step.jsonl")


def test_rows_are_read_as_they_were_written(rows: RowFile, tmp_path: Path) -> None:
    rows.add("GPU", "name", "H200", is_key=True)
    rows.check("GPU", "works", holds=False, value="no")
    assert read(tmp_path) == (
        Row(step="step", subject="GPU", what="name", value="H200", is_key=True),
        Row(step="step", subject="GPU", what="works", value="no", verdict=Verdict.FAILED),
    )


def test_a_step_that_never_wrote_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path) == ()


def test_a_torn_last_line_loses_nothing_before_it(rows: RowFile, tmp_path: Path) -> None:
    rows.add("GPU", "name", "H200")
    with (tmp_path / "step.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": "st')
    assert [row.value for row in read(tmp_path)] == ["H200"]


@pytest.mark.parametrize(
    ("value", "bounds", "verdict", "goal"),
    [
        (0.65, {"most": 0.7}, Verdict.REACHED, "<= 0.7"),
        (0.75, {"most": 0.7}, Verdict.MISSED, "<= 0.7"),
        (21.0, {"least": 20.0}, Verdict.REACHED, ">= 20"),
        (19.0, {"least": 20.0}, Verdict.MISSED, ">= 20"),
    ],
)
def test_a_goal_is_reached_or_missed(
    tmp_path: Path, value: float, bounds: dict[str, float], verdict: Verdict, goal: str
) -> None:
    rows = RowFile(tmp_path / "step.jsonl", "step")
    rows.compare("ours", "p50", value, unit="", **bounds)
    (row,) = read(tmp_path)
    assert (row.verdict, row.goal) == (verdict, goal)


def test_columns_stand_in_line_and_long_values_are_cut(rows: RowFile, tmp_path: Path) -> None:
    rows.add("GPU", "a | b", "x" * 500 + "|")
    rows.not_here("pycuda", "not\ninstalled")
    lines = table(read(tmp_path)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "x" * 107 + "..." in lines[2]
    assert "not installed" in lines[3]


def test_short_table_counts_what_holds_and_names_the_rest(rows: RowFile, tmp_path: Path) -> None:
    rows.check("a", "holds", holds=True)
    rows.check("b", "holds too", holds=True)
    rows.check("c", "does not", holds=False)
    rows.add("d", "figure", "1")
    rows.add("e", "key figure", "2", is_key=True)
    rows.compare("f", "goal", 1.0, unit="", most=2.0)
    shown = short_table(read(tmp_path))
    assert "2 of 3" in shown
    assert "does not" in shown
    assert "key figure" in shown
    assert "goal reached" in shown
    assert "holds too" not in shown
    assert "| d " not in shown


def test_short_table_tells_each_reason_once(rows: RowFile, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        rows.not_here(name, "no GPU")
    rows.not_here("d", "no pycuda")
    shown = short_table(read(tmp_path))
    assert shown.count("no GPU") == 1
    assert "a and 2 more" in shown
    assert "no pycuda" in shown


def test_summary_counts_verdicts(rows: RowFile, tmp_path: Path) -> None:
    rows.check("a", "holds", holds=True)
    rows.check("b", "does not", holds=False)
    rows.add("c", "figure", "1")
    rows.not_here("d", "absent")
    assert summary(read(tmp_path)) == "1 ok, 1 FAILED, 1 not here, 1 figures"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123456, "0.0123"), (12.345, "12.3"), (4321.9, "4,322"), (0.0, "0")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text
