"""Every way of running a model on the processor is measured; how fast is not asked here."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulators.model_package import write_model_package
from typer.testing import CliRunner

from tools.bench.session_options import BATCHES, REFERENCE, WAYS, app, measure


def test_all_ways_are_measured_with_every_batch_and_compared_with_the_bare_loop(
    tmp_path: Path,
) -> None:
    package = tmp_path / "bright"
    write_model_package(package)  # needs no time; those that we ship are in test_bench_engine.py
    rows = list(measure(package, rounds=1))
    assert [(row.batch, row.way) for row in rows] == [
        (batch, way) for batch in BATCHES for way in WAYS
    ]
    for row in rows:
        assert row.package == package.name
        assert 0 < row.cpu_ms < 1000
        assert 0 < row.wall_ms < 10_000
        assert row.rss_mb > 20
        if row.way == REFERENCE:
            assert row.cpu_ratio == row.wall_ratio == pytest.approx(1.0)


def test_too_few_rounds_for_a_median_are_refused() -> None:
    assert CliRunner().invoke(app, ["--rounds", "1"]).exit_code == 2
