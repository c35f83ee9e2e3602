from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock

from dicom_node.instance import InstanceHeader, StoredInstance, StudyIdentity
from edge_runtime.store.database import connect
from edge_runtime.store.inbox import SqliteInbox

CT = "1.2.840.10008.5.1.4.1.1.2"
DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "triage.db"


@pytest.fixture
def connection(database: Path) -> Iterator[sqlite3.Connection]:
    opened = connect(database)
    yield opened
    opened.close()


@pytest.fixture
def inbox(connection: sqlite3.Connection, clock: HandClock) -> SqliteInbox:
    return SqliteInbox(
        connection, clock, reopens=lambda header: header.sop_class_uid != DOSE_REPORT
    )


@pytest.fixture
def stored() -> Callable[..., StoredInstance]:
    """Return a maker of instances; each call is another SOP instance unless told otherwise."""
    numbers = itertools.count(1)

    def make(
        study: str = "1.2.3",
        *,
        sop: str | None = None,
        sop_class: str = CT,
        path: str | None = None,
        association_id: str = "a1",
    ) -> StoredInstance:
        number = next(numbers)
        return StoredInstance(
            header=InstanceHeader(
                study_instance_uid=study,
                series_instance_uid=f"{study}.1",
                sop_instance_uid=sop or f"{study}.1.{number}",
                sop_class_uid=sop_class,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                modality="CT",
                image_position_mm=(0.0, 0.0, float(number)),
            ),
            identity=StudyIdentity(patient_name="DOE^JANE", patient_id="P1"),
            path=path or f"ab/{number:08x}.dcm",
            file_bytes=1_000,
            calling_ae_title="CT01",
            association_id=association_id,
        )

    return make
