"""Tensors to calibrate with come from files that may hold anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.package import InputRule
from tools.quantise.errors import CalibrationError
from tools.quantise.tensors import read_tensors, thinned

RULE = InputRule(name="x", dtype="float32", shape=(-1, 1, 4, 4))


def items(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    array = np.array(values, np.float32)[:, None, None, None]
    return np.ascontiguousarray(np.broadcast_to(array, (len(values), 1, 4, 4)))


def levels(array: np.ndarray[Any, Any]) -> list[float]:
    return [float(item.flat[0]) for item in array]


def test_all_files_count_in_the_order_of_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=items(3))
    np.savez_compressed(tmp_path / "a.npz", x=items(1, 2))
    (tmp_path / "notes.txt").write_text("no tensor", encoding="utf-8")
    assert levels(read_tensors(tmp_path, RULE, most=10)) == [1, 2, 3]


def test_of_too_many_items_some_of_every_file_are_taken(tmp_path: Path) -> None:
    for start in (0, 100, 200):
        np.savez(tmp_path / f"{start:03}.npz", x=items(*range(start, start + 100)))
    taken = levels(read_tensors(tmp_path, RULE, most=6))
    assert taken == [0, 99, 100, 199, 200, 299]


def test_thinning_keeps_both_ends_and_leaves_few_items_alone() -> None:
    assert levels(thinned(items(*range(10)), 4)) == [0, 3, 6, 9]
    assert levels(thinned(items(1, 2), 4)) == [1, 2]


def test_an_empty_folder_is_an_error_that_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"no \.npz files; each has one array 'x'"):
        read_tensors(tmp_path, RULE, most=10)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": items(1)}, "exactly the arrays x"),
        ({"x": items(1), "y": items(1)}, "exactly the arrays x"),
        ({"x": items(1).astype(np.float64)}, "must hold float32"),
        ({"x": items(1)[:, :, :3]}, "takes finite numbers of shape"),
        ({"x": items(1)[0]}, "takes finite numbers of shape"),
        ({"x": items(1)[:0]}, "takes finite numbers of shape"),
        ({"x": items(1, np.nan)}, "takes finite numbers of shape"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, arrays: dict[str, Any], words: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(CalibrationError, match=rf"bad\.npz: .*{words}"):
        read_tensors(tmp_path, RULE, most=10)


def test_a_file_of_objects_is_refused_unread(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CalibrationError, match=r"bad\.npz: must hold float32"):
        read_tensors(tmp_path, RULE, most=10)
