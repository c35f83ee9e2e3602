"""A device's database and spool, what a node writes into them, and a worker's stages on top."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

from dicom_node.headers import read_headers
from dicom_node.instance import StoredInstance
from edge_runtime.model.delivery import Channel
from edge_runtime.pipeline.arrivals import Arrivals
from edge_runtime.pipeline.assembly import AssemblyRules
from edge_runtime.pipeline.early import EarlyRuns
from edge_runtime.pipeline.flow import run_stages
from edge_runtime.pipeline.models import ActiveModel
from edge_runtime.pipeline.prepared import PreparedImages
from edge_runtime.pipeline.selection import reopens
from edge_runtime.pipeline.stages import Pipeline, PipelineRules
from edge_runtime.store.database import connect
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.worklist import AnalysisView, StudyView, list_studies
from simulators.ct_slices import write_ct_slice
from simulators.hand_clock import HandClock

LEASE_US = 15_000_000
BRIGHT_HU = 100
DARK_HU = 0
RULES = PipelineRules(
    assembly=AssemblyRules(),
    lease_us=LEASE_US,
    max_attempts=3,
    max_instances=1_000,
    max_pixel_bytes=1_000_000,
)


class WorkerBench:
    """One device without processes: every step is taken when a test says so."""

    def __init__(self, folder: Path, models: tuple[ActiveModel, ...]) -> None:
        self.database = folder / "triage.db"
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.models = models
        self.clock = HandClock()
        self.rules = RULES
        self._connections: list[sqlite3.Connection] = []
        self.node_connection = self._connect()
        self.inbox = SqliteInbox(self.node_connection, self.clock, reopens=reopens)
        self.inbox.association_opened("a1", "CT01", "192.0.2.1")
        self.pipeline = self.start_worker()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def start_worker(self, *, owner: str = "w1") -> Pipeline:
        """Start a worker on the same database; the one before counts as dead."""
        connection = self._connect()
        self.pipeline = Pipeline(
            connection=connection,
            clock=self.clock,
            spool=self.spool,
            models=self.models,
            arrivals=Arrivals(connection, self.clock.now()),
            prepared=PreparedImages(max_bytes=1_000_000),
            early=EarlyRuns(),
            rules=self.rules,
            owner=owner,
            channels_at_completion=lambda _callers: (Channel.FORWARD,),
            channels_of=lambda _result: (Channel.STRUCTURED_REPORT, Channel.TELEMETRY),
        )
        return self.pipeline

    def use_rules(self, rules: PipelineRules) -> None:
        self.rules = rules
        self.pipeline = dataclasses.replace(self.pipeline, rules=rules)

    def store(
        self,
        number: int,
        *,
        study: str = "1.2.3",
        images: int | None = None,
        hu: int = BRIGHT_HU,
        association_id: str = "a1",
    ) -> Path:
        """Store one slice as the node does: the file first, then the row."""
        path = self.spool / f"{study}-{number}.dcm"
        write_ct_slice(path, number=number, hu=hu, study=study, images=images)
        header, identity = read_headers(path)
        result = self.inbox.record(
            StoredInstance(
                header=header,
                identity=identity,
                path=path.name,
                file_bytes=path.stat().st_size,
                calling_ae_title="CT01",
                association_id=association_id,
            )
        )
        assert result is None
        return path

    def store_study(
        self, count: int, *, study: str = "1.2.3", promised: int | None = None, hu: int = BRIGHT_HU
    ) -> list[Path]:
        """Store slices 1 to ``count``; the scanner promises ``promised``, or just as many."""
        return [
            self.store(number, study=study, images=promised or count, hu=hu)
            for number in range(1, count + 1)
        ]

    def work(self, *, after_s: float = 1.0) -> int:
        """Let time pass, then run the stages until nothing is to be done; return the units."""
        self.clock.advance(after_s)
        units = 0
        while run_stages(self.pipeline):
            units += 1
        return units

    def study(self, uid: str = "1.2.3") -> StudyView:
        found = {
            study.study_instance_uid: study
            for study in list_studies(self.node_connection, limit=100)
        }
        return found[uid]

    def analysis(self, uid: str = "1.2.3", *, revision: int | None = None) -> AnalysisView:
        study = self.study(uid)
        (found,) = (
            item for item in study.analyses if item.revision == (revision or study.revision)
        )
        return found

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self.database)
        self._connections.append(connection)
        return connection
