"""Golden inputs lie within what the preprocessing gives, and on both sides of every point."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulators.tiny_model import tiny_model

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
from engines.package import ModelPackage
from engines.steps import Neighbours, PercentileNormalise, ScaleRange, Standardise, ZscoreNormalise
from tools.models.errors import UnfitModelError
from tools.models.golden import FEWEST, golden_of, make_golden
from tools.models.scaffold import scaffold
from tools.models.value_range import STORED, value_ranges

ANSWERS: dict[str, Any] = {
    "kind": "radiograph",
    "title": "CHEST",
    "intended_use": "Tests.",
    "labels": {"logits": ["Pneumothorax", "Effusion"]},
}


@contextmanager
def loaded(folder: Path, **model: Any) -> Iterator[tuple[Engine, ModelPackage]]:
    content = tiny_model(**model).SerializeToString()
    (folder / "m.onnx").write_bytes(content)
    file = VerifiedFile(path=folder / "m.onnx", sha256=hashlib.sha256(content).hexdigest())
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
        package = scaffold(
            folder / "m.onnx", folder / "package", name="made", answers=ANSWERS, ask=None
        ).package
        yield engine, package


def at(package: ModelPackage, threshold: float) -> ModelPackage:
    return package.model_copy(
        update={
            "findings": tuple(
                rule.model_copy(
                    update={
                        "operating_point": rule.operating_point.model_copy(
                            update={"threshold": threshold}
                        )
                    }
                )
                for rule in package.findings
            )
        }
    )


def test_values_lie_within_the_range_and_reach_both_ends(tmp_path: Path) -> None:
    with loaded(tmp_path) as (engine, package):
        golden = make_golden(engine, package, frozenset(), seed=1)
    assert len(golden.inputs) >= FEWEST
    assert 0 <= golden.inputs.min() < 0.01
    assert 0.99 < golden.inputs.max() <= 1


def test_the_same_seed_gives_the_same_inputs_and_another_others(tmp_path: Path) -> None:
    with loaded(tmp_path) as (engine, package):
        first, again, other = (
            make_golden(engine, package, frozenset(), seed=seed).inputs for seed in (1, 1, 2)
        )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_given_operating_point_is_kept_and_inputs_are_searched_for_it(tmp_path: Path) -> None:
    # Only pictures that are nearly white reach it: the first draw has none.
    with loaded(tmp_path, outputs=2, gain=8.0, bias=-7.0) as (engine, package):
        strict = at(package, 0.6)
        first = make_golden(engine, strict, frozenset(), seed=4)
    assert first.one_sided == ()
    assert first.package == strict


def test_an_operating_point_beyond_all_answers_is_told(tmp_path: Path) -> None:
    with loaded(tmp_path, gain=0.5, bias=-3.0) as (engine, package):
        golden = make_golden(engine, at(package, 0.999), frozenset(), seed=1)
    assert golden.one_sided == ("pneumothorax", "effusion")


def test_a_model_that_looks_at_nothing_gets_no_operating_point(tmp_path: Path) -> None:
    with loaded(tmp_path) as (engine, package):
        same = np.zeros((4, 1, 16, 16), np.float32)
        with pytest.raises(UnfitModelError, match="the same number for 'effusion'"):
            golden_of(engine, package, frozenset({"effusion"}), same)


def test_inputs_too_large_for_a_golden_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny_model((1, 2, 256, 512, 512)).SerializeToString())
    answers = ANSWERS | {"windows": "0:80, 0:40"}
    del answers["kind"]
    with pytest.raises(UnfitModelError, match="need two items"):
        scaffold(tmp_path / "m.onnx", tmp_path / "package", name="made", answers=answers, ask=None)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), (STORED,)),
        ((PercentileNormalise(step="percentile_normalise", percentiles=(1, 99)),), ((0, 1),)),
        (
            (PercentileNormalise(step="percentile_normalise", percentiles=(1, 99), clip=False),),
            ((-0.25, 1.25),),
        ),
        ((ZscoreNormalise(step="zscore_normalise"),), ((-4, 4),)),
        (
            (ScaleRange(step="scale_range", source=(0, 1024), target=(0, 1), clip=False),),
            ((-1, 3071 / 1024),),
        ),
        (
            (
                ScaleRange(step="scale_range", source=(0, 1), target=(0, 2)),
                Standardise(step="standardise", mean=(1,), deviation=(0.5,)),
                Neighbours(step="neighbours", radius=1),
            ),
            ((-2, 2),) * 3,
        ),
    ],
)
def test_the_range_follows_the_steps(steps: Any, expected: Any) -> None:
    assert value_ranges(steps) == expected
