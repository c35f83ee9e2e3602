"""Every way of running a model on the processor is measured; how fast is not asked here."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from engines.shipped import shipped_packages
from tools.bench.session_options import BATCHES, REFERENCE, WAYS, app, measure

CHEST = shipped_packages()["paediatric_cxr_pneumonia"]


def test_all_ways_are_measured_with_every_batch_and_compared_with_the_bare_loop() -> None:
    rows = list(measure(CHEST, rounds=1))
    assert [(row.batch, row.way) for row in rows] == [
        (batch, way) for batch in BATCHES for way in WAYS
    ]
    for row in rows:
        assert row.package == CHEST.name
        assert 0 < row.cpu_ms < 1000
        assert 0 < row.wall_ms < 10_000
        assert row.rss_mb > 20
        if row.way == REFERENCE:
            assert row.cpu_ratio == row.wall_ratio == pytest.approx(1.0)


def test_too_few_rounds_for_a_median_are_refused() -> None:
    assert CliRunner().invoke(app, ["--rounds", "1"]).exit_code == 2
