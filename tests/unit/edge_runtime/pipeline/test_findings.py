"""Several findings of one model, and a site's own operating points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.model_package import write_model_package
from simulators.scores import scored
from simulators.worker_bench import BRIGHT_HU, WorkerBench
from structlog.testing import capture_logs

from edge_runtime.config.settings import EngineSettings
from edge_runtime.errors import SettingsError
from edge_runtime.model.analysis import AnalysisEvent, AnalysisState
from edge_runtime.model.finding import FindingScore, Scored
from edge_runtime.pipeline.models import ActiveModel, open_models, site_thresholds
from engines.loading import LoadedPackage
from engines.package import Calibration, ModelPackage, OperatingPoint, Urgency
from engines.runner import HostRunner

SLICES = 8


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedPackage:
    return write_model_package(tmp_path / "package")


def with_two_findings(package: ModelPackage) -> ModelPackage:
    """The second one is the same number, calibrated so that it is always suspected."""
    first = package.findings[0]
    second = first.model_copy(
        update={
            "key": "routine_one",
            "urgency": Urgency.ROUTINE,
            "calibration": Calibration(slope=1.0, intercept=20.0),
            "operating_point": OperatingPoint(threshold=0.9, allowed=(0.5, 0.95)),
        }
    )
    return package.model_copy(update={"findings": (first, second)})


@pytest.fixture
def two(loaded: LoadedPackage) -> Iterator[ActiveModel]:
    with open_models([loaded], EngineSettings()) as (opened,):
        assert opened.engine is not None
        package = with_two_findings(opened.package)
        yield ActiveModel(package=package, runner=HostRunner(package, opened.engine))


@pytest.fixture
def bench(tmp_path: Path, two: ActiveModel) -> Iterator[WorkerBench]:
    made = WorkerBench(tmp_path, (two,))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("hu", "suspected", "raised"),
    [(BRIGHT_HU, ["bright", "routine_one"], 3), (0, ["routine_one"], 1)],
)
def test_each_finding_is_kept_and_the_study_is_as_urgent_as_what_is_suspected(
    bench: WorkerBench, hu: int, suspected: list[str], raised: int
) -> None:
    bench.store_study(SLICES, hu=hu)
    bench.work()
    analysis = bench.analysis()
    assert analysis.state is AnalysisState.SUSPECTED
    assert [each.key for each in analysis.findings] == ["bright", "routine_one"]
    assert [each.key for each in analysis.findings if each.suspected] == suspected
    assert bench.study().raised == raised
    leading = next(each for each in analysis.findings if each.suspected)
    assert (analysis.probability, analysis.threshold) == (leading.probability, leading.threshold)


def test_the_first_suspected_finding_speaks_for_all() -> None:
    quiet = FindingScore(key="a", probability=0.1, threshold=0.5, urgency=3)
    loud = FindingScore(key="b", probability=0.6, threshold=0.5, urgency=1)
    result = Scored(findings=(quiet, loud), series_instance_uid=None)
    assert result.leading is loud
    assert result.urgency == 1
    assert result.event is AnalysisEvent.FOUND
    nothing = Scored(findings=(quiet, quiet), series_instance_uid=None)
    assert nothing.leading is quiet
    assert nothing.urgency == 0
    assert scored(0.5).suspected


def test_a_site_moves_the_operating_point_within_its_bounds(loaded: LoadedPackage) -> None:
    points = {"bright.bright": 0.45, "another_model.bright": 0.99}
    with open_models([loaded], EngineSettings(), operating_points=points) as (model,):
        assert model.thresholds == {"bright": 0.45}
        assert model.engine is not None


@pytest.mark.parametrize(
    ("points", "remedy"),
    [
        ({"bright.bright": 0.7}, "the package allows 0.4 to 0.6"),
        ({"bright.brigth": 0.5}, "no finding of that name"),
    ],
)
def test_an_operating_point_out_of_bounds_refuses_the_model_aloud(
    loaded: LoadedPackage, points: dict[str, float], remedy: str
) -> None:
    with (
        capture_logs() as logs,
        open_models([loaded], EngineSettings(), operating_points=points) as (model,),
    ):
        assert model.engine is None
    refusal: dict[str, Any] = next(dict(log) for log in logs if log["event"] == "model.refused")
    assert remedy in refusal["remedy"]
    assert remedy in model.refusal
    with pytest.raises(SettingsError, match="operating_points"):
        site_thresholds(loaded.manifest, points)
