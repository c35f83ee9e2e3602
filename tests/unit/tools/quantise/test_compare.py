"""INT8 beside FP32 on test sets: drawn chests and drawn heads, named as the real ones are."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from engines.loading import EVALUATION_FILE
from engines.shipped import shipped_packages
from tools.head_ct import recipe as head_recipe
from tools.head_ct.phantom_sets import PhantomSet, phantom_of, table_mm
from tools.head_ct.simulate import simulate, write_study
from tools.paediatric_cxr.dataset import DataSplit, split_of
from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import OpacityKind, draw_chest_spec
from tools.quantise.compare import app, compare
from tools.quantise.comparing import Answers, change_of, merit_of
from tools.quantise.labelled import (
    CALIBRATION_MATRIX,
    CALIBRATION_PHANTOMS,
    TEST_MATRIX,
    radiograph_set,
)

SIDE = 112
OF_EACH = 3
COLUMNS = 10


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [*map(str, words)])


def answers(logits: list[float], suspected: list[bool], positive: list[bool]) -> Answers:
    return Answers(
        logits=np.array(logits), suspected=np.array(suspected), positive=np.array(positive)
    )


# ------------------------------------------------------------------------------- figures

BEFORE = answers([2.0, 0.5, -1.0, -3.0], [True, True, False, False], [True, False, True, False])


def test_merit_is_that_of_the_operating_point() -> None:
    merit = merit_of(BEFORE)
    assert (merit.cases, merit.auc, merit.sensitivity, merit.specificity) == (4, 0.75, 0.5, 0.5)


def test_a_change_counts_decisions_and_measures_logits() -> None:
    after = answers(
        [1.5, -0.5, -1.0, -3.5], [True, False, False, False], [True, False, True, False]
    )
    change = change_of(BEFORE, after)
    assert (change.flips, change.largest, change.mean) == (1, 1.0, 0.5)
    same = change_of(BEFORE, BEFORE)
    assert (same.flips, same.largest, same.mean) == (0, 0.0, 0.0)


# ------------------------------------------------------------------------------- radiographs


def draw_chests(folder: Path, *splits: DataSplit) -> Path:
    """Some children of each set, ill and healthy, in the data set's folders."""
    for split in splits:
        numbers = (each for each in count(1) if split_of(f"normal-{each}") is split)
        for _ in range(OF_EACH):
            number = next(numbers)
            write_chest(folder / "NORMAL" / f"IM-{number:04d}-0001.jpeg", number, None)
        numbers = (each for each in count(1) if split_of(f"person-{each}") is split)
        for _ in range(OF_EACH):
            number = next(numbers)
            path = folder / "PNEUMONIA" / f"person{number}_virus_1.jpeg"
            write_chest(path, number, OpacityKind.INTERSTITIAL)
    return folder


def write_chest(path: Path, seed: int, kind: OpacityKind | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_chest(draw_chest_spec(seed, opacity=kind), rows=SIDE, columns=SIDE).density
    Image.fromarray(np.rint(drawn * 255).astype(np.uint8)).save(path, quality=90)


def test_every_way_of_quantising_answers_the_test_set_of_the_radiographs(tmp_path: Path) -> None:
    data = draw_chests(tmp_path, DataSplit.CALIBRATION, DataSplit.TEST)
    done = run("--radiographs", data, "--json")
    assert done.exit_code == 0, done.output
    fp32, *quantised = json.loads(done.stdout)["rows"]
    assert fp32["int8"] is None
    assert {row["merit"]["cases"] for row in (fp32, *quantised)} == {2 * OF_EACH}
    ways = [(row["int8"]["calibration"], row["int8"]["method"]) for row in quantised]
    assert ways == [
        ("golden", "minmax"),
        ("golden", "percentile"),
        ("calibration set", "minmax"),
        ("calibration set", "percentile"),
    ]
    assert [row["int8"]["items"] for row in quantised[2:]] == [2 * OF_EACH] * 2
    for row in quantised:
        assert 0 < row["int8"]["change"]["mean"] <= row["int8"]["change"]["largest"]
        assert 0.2 < row["int8"]["size_ratio"] < 0.4
        assert row["int8"]["golden_flips"] == 0


@pytest.mark.parametrize("splits", [(DataSplit.TEST,), (DataSplit.CALIBRATION,)])
def test_data_that_cannot_tell_anything_are_an_error(
    splits: tuple[DataSplit, ...], tmp_path: Path
) -> None:
    done = run("--radiographs", draw_chests(tmp_path, *splits))
    assert done.exit_code == 1
    assert "for calibration" in done.stderr


def test_other_data_are_wrong_usage(tmp_path: Path) -> None:
    done = run("--radiographs", tmp_path)
    assert done.exit_code == 2
    assert "no NORMAL/*.jpeg" in " ".join(done.stderr.split())


def test_without_data_there_is_nothing_to_compare() -> None:
    assert run().exit_code == 2


def test_the_test_set_is_the_one_on_which_the_package_was_evaluated() -> None:
    folder = os.environ.get("EDGE_TRIAGE_TEST_DATA")
    data = Path(folder or "none") / "cxr-paediatric"
    if not data.is_dir():
        pytest.skip("EDGE_TRIAGE_TEST_DATA holds no folder cxr-paediatric")
    merit = next(compare(radiograph_set(data))).merit
    shipped = shipped_packages()["paediatric_cxr_pneumonia"] / EVALUATION_FILE
    evaluation = json.loads(shipped.read_text(encoding="utf-8"))
    assert merit.cases == evaluation["positives"] + evaluation["negatives"]
    told = {each["key"]: each["value"] for each in evaluation["estimates"]}
    for key in ("auc", "sensitivity", "specificity"):
        assert getattr(merit, key) == pytest.approx(told[key], abs=1e-3)


# ------------------------------------------------------------------------------- phantoms


def test_phantoms_that_were_drawn_are_compared_in_a_table(tmp_path: Path) -> None:
    drawn = [
        simulate(spec, table=table_mm(PhantomSet.TEST, spec))
        for spec in (phantom_of(PhantomSet.TEST, number, matrix=64) for number in (0, 1))
    ]
    for phantoms, matrix, number in (
        (PhantomSet.CALIBRATION, CALIBRATION_MATRIX, CALIBRATION_PHANTOMS),
        (PhantomSet.TEST, TEST_MATRIX, 2),
    ):
        folder = tmp_path / f"{phantoms.value}-{matrix}-{head_recipe.SLABS.origin}"
        folder.mkdir()
        for index in range(number):
            write_study(drawn[index % 2], folder / f"{index:06d}.npz")
    done = run("--phantoms", tmp_path, "--count", "2")
    assert done.exit_code == 0, done.output
    title, _, head, _, *rows, _ = done.stdout.splitlines()
    assert title == "head_ct_phantom, 2 cases"
    assert {line.count("|") for line in (head, *rows)} == {COLUMNS + 1}
    assert rows[0].startswith("| FP32 |")
    assert rows[3].startswith("| minmax, 256 items (calibration set) |")
    assert len(rows) == 5
