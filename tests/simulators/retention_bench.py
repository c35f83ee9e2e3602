"""A device's database and spool on a disk of a known size, with retention on top; no processes."""

from __future__ import annotations

import itertools
import secrets
import sqlite3
from pathlib import Path

from dicom_node.headers import read_headers
from dicom_node.instance import StoredInstance
from dicom_node.spool import Spool
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import Result
from edge_runtime.model.study import CompletionReason
from edge_runtime.pipeline.retention import RetentionRules
from edge_runtime.pipeline.selection import reopens
from edge_runtime.pipeline.sweeping import Sweeper
from edge_runtime.store.analyses import (
    PlannedAnalysis,
    claim_analysis,
    complete_study,
    finish_analysis,
)
from edge_runtime.store.database import connect, transaction
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.worklist import StudyView, find_study
from simulators.ct_slices import write_ct_slice
from simulators.hand_clock import HandClock
from simulators.scores import scored

DAY_S = 86_400.0
KEEP_S = 7 * DAY_S
LEAST_KEEP_S = 600.0
RULES = RetentionRules(
    keep_us=int(KEEP_S * 1e6), least_keep_us=int(LEAST_KEEP_S * 1e6), free_bytes_target=0
)
NEGATIVE = scored(0.04)
MODEL = PlannedAnalysis(model_name="m", model_version="1.0.0", urgency=3)
OWNER = "w1"


class SmallDisk(Spool):
    """A spool on a disk of ``capacity`` bytes, of which others take ``foreign`` bytes."""

    capacity = 1 << 40
    foreign = 0

    def free_bytes(self) -> int:
        return self.capacity - self.foreign - self.used_bytes()

    def used_bytes(self) -> int:
        """Bytes that the spool's files take."""
        return sum(self.absolute(path).stat().st_blocks * 512 for path in self.iter_files())


class RetentionBench:
    """One device; every step is taken when a test says so."""

    def __init__(self, folder: Path, *, rules: RetentionRules = RULES) -> None:
        self.database = folder / "triage.db"
        self.spool = SmallDisk(folder / "spool")
        self.clock = HandClock()
        self.connection = connect(self.database)
        self.inbox = SqliteInbox(self.connection, self.clock, reopens=reopens)
        self.inbox.association_opened("a1", "CT01", "192.0.2.1")
        self.rules = rules
        self.sweeper = Sweeper(self.connection, self.spool, self.clock, rules)
        self._numbers = itertools.count(1)

    def use_rules(self, rules: RetentionRules) -> None:
        self.rules = rules
        self.sweeper = Sweeper(self.connection, self.spool, self.clock, rules)

    def close(self) -> None:
        self.connection.close()

    def store(self, study: str, *, number: int | None = None, hu: int = 0) -> str:
        """Store one slice as the node does: the file first, then the row; return its path."""
        path = f"{secrets.token_hex(1)}/{secrets.token_hex(15)}.dcm"
        absolute = self.spool.absolute(path)
        write_ct_slice(absolute, number=number or next(self._numbers), hu=hu, study=study)
        header, identity = read_headers(absolute)
        instance = StoredInstance(
            header=header,
            identity=identity,
            path=path,
            file_bytes=absolute.stat().st_size,
            calling_ae_title="CT01",
            association_id="a1",
        )
        held = self.inbox.record(instance)
        if held is not None:
            assert self.inbox.record_conflict(instance, held, self.spool.data_set_digest(path))
            return self.spool.quarantine(path)
        return path

    def complete(self, study: str, *, channels: tuple[Channel, ...] = ()) -> None:
        view = self.view(study)
        assert view is not None
        assert complete_study(
            self.connection,
            view.study_id,
            instances_seen=view.instances,
            reason=CompletionReason.COUNTS,
            models=[MODEL],
            channels=channels,
            at=self.clock.now(),
        )

    def decide(self, result: Result = NEGATIVE, *, channels: tuple[Channel, ...] = ()) -> None:
        """Claim the next analysis and finish it."""
        claim = claim_analysis(
            self.connection, owner=OWNER, at=self.clock.now(), lease_us=60_000_000
        )
        assert claim is not None
        finish_analysis(
            self.connection,
            claim,
            result,
            owner=OWNER,
            engine="onnxruntime",
            channels=channels,
            at=self.clock.now(),
        )

    def decided(
        self, study: str, *, images: int = 1, channels: tuple[Channel, ...] = ()
    ) -> list[str]:
        """Take a study all the way to its decision, and let retention meet it; return its paths."""
        paths = [self.store(study) for _ in range(images)]
        self.complete(study)
        self.decide(channels=channels)
        self.sweeper.sweep()
        return paths

    def set_deliveries(self, state: str) -> None:
        """Move every delivery that is not there yet."""
        with transaction(self.connection):
            self.connection.execute(
                "UPDATE delivery SET state = ?, error_code = 'X' WHERE state <> ?", (state, state)
            )

    def view(self, study: str) -> StudyView | None:
        detail = find_study(self.connection, study)
        return detail.study if detail else None

    def holds(self, study: str) -> bool:
        return self.view(study) is not None

    def files(self) -> set[str]:
        """Every file below the shards and in quarantine."""
        root = self.spool.root
        return {str(each.relative_to(root)) for each in root.rglob("*.dcm")}

    def rows(self, table: str) -> int:
        return count_rows(self.connection, table)


def count_rows(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
