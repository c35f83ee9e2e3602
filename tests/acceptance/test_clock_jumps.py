"""A wall clock that jumps changes no order, no completion, no lease and no timeout."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from simulators import crooked_time
from simulators.scanner import SLICES, Scanner
from simulators.waiting import wait_until

from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.model.study import StudyState
from edge_runtime.store.database import connect
from edge_runtime.store.worklist import StudyView, list_studies
from tools.demo.site import Site, SiteOptions

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("temporary_folder")]

_DAY_S = 86_400
_SETTLES_S = 60.0
# Completion by counts, however long the pauses between our associations take.
_PATIENT = """
[assembly]
quiet_s = 60.0
"""


class WallClock:
    """What the device's processes take for the time of day."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._offset = folder / "offset"
        self.jump_to(0)
        (supplement,) = crooked_time.__path__
        monkeypatch.setenv("CROOKED_TIME", str(self._offset))
        known = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (supplement, known))))

    def jump_to(self, seconds: int) -> None:
        """Set it to so many seconds from the truth."""
        new = self._offset.with_suffix(".new")
        new.write_text(str(seconds), "ascii")
        new.replace(self._offset)


def test_a_clock_set_back_a_day_and_forward_a_year_within_a_study_changes_nothing(
    tmp_path: Path, bright_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = WallClock(tmp_path, monkeypatch)
    options = SiteOptions(models=(str(bright_package),), settings=_PATIENT, with_broker=False)
    with Site(tmp_path / "site", options) as site:
        pids = {each.role: each.pid for each in site.processes()}
        scanner = Scanner(node=site.node, folder=tmp_path / "scanner", seed=1)
        study = scanner.draw(is_bright=True)
        scanner.push(study.paths[:4])
        clock.jump_to(-_DAY_S)
        scanner.push(study.paths[4:8])
        clock.jump_to(365 * _DAY_S)
        scanner.push(study.paths[8:])
        assert len(scanner.stored) == SLICES
        _wait_until_delivered(site, 1)
        # From here on the clock is a year ahead: set back again while a study is analysed.
        other = scanner.draw(is_bright=False)
        scanner.push(other.paths)
        clock.jump_to(0)
        _wait_until_delivered(site, 2)
        assert {each.role: each.pid for each in site.processes()} == pids
        assert "process.failed" not in site.log.read_text("utf-8")
        _assert_order(site, study.uid)
        states = {view.study_instance_uid: _state(view) for view in _studies(site)}
        assert states == {
            study.uid: AnalysisState.SUSPECTED,
            other.uid: AnalysisState.NOT_SUSPECTED,
        }


def _studies(site: Site) -> tuple[StudyView, ...]:
    with contextlib.closing(connect(site.database)) as connection:
        return list_studies(connection, limit=100)


def _state(view: StudyView) -> AnalysisState:
    (analysis,) = view.current
    return analysis.state


def _wait_until_delivered(site: Site, count: int) -> None:
    def delivered() -> bool:
        views = [view for view in _studies(site) if view.state is StudyState.COMPLETE]
        sent = [
            item
            for view in views
            for analysis in view.analyses
            for item in analysis.deliveries
            if item.channel is Channel.STRUCTURED_REPORT and item.state is DeliveryState.SENT
        ]
        return len(views) == len(sent) == count

    wait_until(delivered, _SETTLES_S)


def _assert_order(site: Site, uid: str) -> None:
    """By the clock that nobody sets: instances as they came, marks in the order of the way."""
    with contextlib.closing(connect(site.database)) as connection:
        rows = connection.execute(
            "SELECT sop_instance_uid, stored_mono_us FROM instance JOIN study "
            "ON study.id = study_id WHERE study_instance_uid = ? ORDER BY stored_mono_us",
            (uid,),
        ).fetchall()
        marks = connection.execute(
            "SELECT mark FROM stamp JOIN study ON study.id = study_id "
            "WHERE study_instance_uid = ? AND mark IN "
            "('first_stored', 'last_stored', 'complete', 'started', 'decided', 'sent') "
            "ORDER BY stamp.mono_us",
            (uid,),
        ).fetchall()
        jumps_us = connection.execute(
            "SELECT max(stored_wall_us) - min(stored_wall_us) FROM instance"
        ).fetchone()[0]
        open_ones = connection.execute(
            "SELECT count(*) FROM association WHERE ended IS NULL"
        ).fetchone()[0]
    assert [int(row[0].rpartition(".")[2]) for row in rows] == list(range(1, SLICES + 1))
    order = [row[0] for row in marks]
    assert order == ["first_stored", "last_stored", "complete", "started", "decided", "sent"]
    assert open_ones == 0
    # The jumps did reach the device.
    assert jumps_us > 365 * _DAY_S * 1_000_000
