"""What the worker remembers of arriving studies is what the database holds, restarts or not."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock

from dicom_node.instance import InstanceHeader, StoredInstance, StudyIdentity
from edge_runtime.model.study import CompletionReason
from edge_runtime.pipeline.arrivals import Arrivals, Arriving
from edge_runtime.pipeline.selection import reopens
from edge_runtime.store.analyses import complete_study
from edge_runtime.store.database import connect
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.studies import receiving_studies

CT = "1.2.840.10008.5.1.4.1.1.2"
REPORT = "1.2.840.10008.5.1.4.1.1.88.33"


class Node:
    """What a node writes into the database."""

    def __init__(self, database: Path) -> None:
        self.clock = HandClock()
        self.connection = connect(database)
        self.inbox = SqliteInbox(self.connection, self.clock, reopens=reopens)
        self.inbox.association_opened("a1", "CT01", "192.0.2.1")
        self._numbers = itertools.count(1)

    def store(
        self, study: str = "1.2.3", *, sop_class: str = CT, association_id: str = "a1"
    ) -> None:
        number = next(self._numbers)
        self.clock.advance(0.1)
        header = InstanceHeader(
            study_instance_uid=study,
            series_instance_uid=f"{study}.1",
            sop_instance_uid=f"{study}.1.{number}",
            sop_class_uid=sop_class,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            modality="CT",
            has_pixel_data=sop_class == CT,
        )
        self.inbox.record(
            StoredInstance(
                header=header,
                identity=StudyIdentity(),
                path=f"{number}.dcm",
                file_bytes=1,
                calling_ae_title="CT01",
                association_id=association_id,
            )
        )

    def complete(self) -> None:
        for study in receiving_studies(self.connection):
            assert complete_study(
                self.connection,
                study.study_id,
                instances_seen=study.instances,
                reason=CompletionReason.QUIET,
                models=(),
                channels=(),
                at=self.clock.now(),
            )


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "triage.db"


@pytest.fixture
def node(database: Path) -> Iterator[Node]:
    made = Node(database)
    yield made
    made.connection.close()


@pytest.fixture
def connection(node: Node, database: Path) -> Iterator[sqlite3.Connection]:  # noqa: ARG001 - first
    with contextlib.closing(connect(database)) as opened:
        yield opened


@pytest.fixture
def arrivals(connection: sqlite3.Connection, node: Node) -> Arrivals:
    return Arrivals(connection, node.clock.now())


def _only(arrivals: Arrivals) -> Arriving:
    ((_, arriving),) = arrivals.receiving()
    return arriving


def _summary(arriving: Arriving) -> tuple[object, ...]:
    return (
        arriving.instances,
        arriving.revision,
        arriving.first_stored_mono_us,
        arriving.last_stored_mono_us,
        arriving.longest_pause_us,
        arriving.tally.series(),
    )


def _drain(arrivals: Arrivals) -> int:
    return sum(1 for _ in iter(arrivals.next_unprepared, None))


def test_every_instance_is_met_once(node: Node, arrivals: Arrivals) -> None:
    assert not arrivals.follow()
    node.store()
    node.store()
    assert arrivals.follow()
    assert not arrivals.follow()
    assert _only(arrivals).instances == 2
    assert _drain(arrivals) == 2


def test_a_flood_is_met_in_batches(node: Node, arrivals: Arrivals) -> None:
    for _ in range(600):
        node.store()
    rounds = 0
    while arrivals.follow():
        rounds += 1
    assert rounds == 3
    assert _only(arrivals).instances == 600


def test_a_restart_remembers_what_the_worker_before_knew(
    node: Node, connection: sqlite3.Connection, arrivals: Arrivals
) -> None:
    for _ in range(3):
        node.store()
    node.clock.advance(1.5)
    node.store()
    arrivals.follow()
    again = Arrivals(connection, node.clock.now())
    assert _summary(_only(again)) == _summary(_only(arrivals))
    assert _drain(again) == 4


def test_an_instance_that_is_stored_while_a_worker_starts_is_met_once(
    node: Node, connection: sqlite3.Connection
) -> None:
    node.store()
    late = iter(["1.2.3"])

    def store_late(statement: str) -> None:
        if "JOIN study" in statement:
            for study in late:
                node.store(study)

    connection.set_trace_callback(store_late)
    arrivals = Arrivals(connection, node.clock.now())
    connection.set_trace_callback(None)
    assert next(late, None) is None
    arrivals.follow()
    assert _only(arrivals).instances == 2
    assert _drain(arrivals) == 2


def test_stamps_of_an_earlier_boot_do_not_lie_ahead_of_the_clock(
    node: Node, connection: sqlite3.Connection
) -> None:
    node.clock.advance(1_000_000)
    node.store()
    node.clock.reboot()
    arriving = _only(Arrivals(connection, node.clock.now()))
    assert arriving.last_stored_mono_us == node.clock.now().mono_us
    assert arriving.first_stored_mono_us <= arriving.last_stored_mono_us


def test_a_complete_study_is_forgotten_with_its_slices(node: Node, arrivals: Arrivals) -> None:
    node.store()
    arrivals.follow()
    node.complete()
    assert arrivals.receiving() == ()
    assert _drain(arrivals) == 0


def test_a_late_image_brings_back_all_that_came_before(
    node: Node, connection: sqlite3.Connection, arrivals: Arrivals
) -> None:
    node.store()
    node.store()
    arrivals.follow()
    node.complete()
    arrivals.receiving()
    node.clock.advance(60.0)
    node.store()
    arrivals.follow()
    arriving = _only(arrivals)
    assert (arriving.instances, arriving.revision) == (3, 2)
    assert arriving.first_stored_mono_us == arriving.last_stored_mono_us
    assert arriving.longest_pause_us == 0
    assert _summary(_only(Arrivals(connection, node.clock.now()))) == _summary(arriving)


def test_a_late_image_that_follows_at_once_counts_the_same(node: Node, arrivals: Arrivals) -> None:
    node.store()
    arrivals.follow()
    node.complete()
    node.store()
    arrivals.follow()
    assert (_only(arrivals).instances, _only(arrivals).revision) == (2, 2)


def test_a_report_that_comes_back_to_a_complete_study_opens_nothing(
    node: Node, arrivals: Arrivals
) -> None:
    node.store()
    arrivals.follow()
    node.complete()
    node.store(sop_class=REPORT)
    arrivals.follow()
    assert arrivals.receiving() == ()
    node.store()
    arrivals.follow()
    assert (_only(arrivals).instances, _only(arrivals).revision) == (3, 2)


def test_studies_do_not_mix(node: Node, arrivals: Arrivals) -> None:
    for _ in range(3):
        node.store("1.2.3")
        node.store("1.2.4")
    node.store("1.2.4")
    arrivals.follow()
    assert sorted(arriving.instances for _, arriving in arrivals.receiving()) == [3, 4]


def test_the_view_tells_which_associations_are_open(node: Node, arrivals: Arrivals) -> None:
    node.inbox.association_opened("a2", "CT01", "192.0.2.1")
    node.store(association_id="a1")
    node.store(association_id="a2")
    node.inbox.association_closed("a1", released=True)
    arrivals.follow()
    ((progress, arriving),) = arrivals.receiving()
    view = arriving.view(arrivals.associations(progress.study_id))
    assert (view.open_associations, view.are_all_released) == (1, False)
    assert view.last_closed_mono_us == node.clock.now().mono_us
    node.clock.advance(1.0)
    node.inbox.association_closed("a2", released=True)
    view = arriving.view(arrivals.associations(progress.study_id))
    assert (view.open_associations, view.are_all_released) == (0, True)
    assert view.last_closed_mono_us == node.clock.now().mono_us


def test_an_association_of_an_earlier_boot_counts_as_lost_long_ago(
    node: Node, connection: sqlite3.Connection
) -> None:
    node.store()
    node.clock.reboot()
    arrivals = Arrivals(connection, node.clock.now())
    ((progress, arriving),) = arrivals.receiving()
    view = arriving.view(arrivals.associations(progress.study_id))
    assert (view.open_associations, view.are_all_released) == (0, False)
    assert view.last_closed_mono_us == 0


def test_a_commit_of_others_makes_every_study_be_looked_at_again(
    node: Node, arrivals: Arrivals
) -> None:
    node.store("1.2.3")
    node.store("1.2.4")
    arrivals.follow()
    for _, arriving in arrivals.receiving():
        arriving.look_again_mono_us = 10**15
    arrivals.reconsider()
    assert all(arriving.look_again_mono_us == 0 for _, arriving in arrivals.receiving())
