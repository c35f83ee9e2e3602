"""What has arrived of the studies that still receive, kept in step with the database."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_runtime.model.clock import Instant
from edge_runtime.model.procedure_step import ProcedureStepState
from edge_runtime.pipeline.assembly import AssemblyView, StepsView, StudyTally
from edge_runtime.store.procedure_steps import (
    MissingImages,
    StepProgress,
    missing_images,
    steps_of_study,
)
from edge_runtime.store.studies import (
    ArrivedInstance,
    AssociationProgress,
    StudyProgress,
    associations_of,
    instances_after,
    instances_of_receiving,
    instances_of_study,
    last_instance_id,
    receiving_studies,
)

_BATCH = 256


@dataclass(slots=True)
class Arriving:
    """One study on its way; times are monotonic microseconds and of its latest revision."""

    tally: StudyTally = field(default_factory=StudyTally)
    instances: int = 0
    revision: int = 0
    first_stored_mono_us: int = 0
    last_stored_mono_us: int = 0
    longest_pause_us: int = 0
    look_again_mono_us: int = 0
    study_instance_uid: str = field(default="", repr=False)
    steps: StepsView | None = None
    steps_seen: tuple[int, tuple[StepProgress, ...]] = (0, ())
    """What ``steps`` was made from: how many instances, and which steps."""

    def add(self, instance: ArrivedInstance, stored_mono_us: int) -> None:
        """Count one instance; the first of a later revision starts the clock anew."""
        if instance.revision > self.revision:
            self.revision = instance.revision
            self.first_stored_mono_us = self.last_stored_mono_us = stored_mono_us
            self.longest_pause_us = 0
        pause = stored_mono_us - self.last_stored_mono_us
        self.longest_pause_us = max(self.longest_pause_us, pause)
        self.last_stored_mono_us = max(stored_mono_us, self.last_stored_mono_us)
        self.instances += 1
        self.study_instance_uid = instance.header.study_instance_uid
        self.look_again_mono_us = 0
        self.tally.add(instance.header)

    def view(self, associations: tuple[AssociationProgress, ...]) -> AssemblyView:
        """Return what the completion rule looks at."""
        ends = [item.ended_mono_us for item in associations if item.ended_mono_us is not None]
        return AssemblyView(
            series=self.tally.series(),
            first_stored_mono_us=self.first_stored_mono_us,
            last_stored_mono_us=self.last_stored_mono_us,
            longest_pause_us=self.longest_pause_us,
            open_associations=sum(item.ended is None for item in associations),
            are_all_released=all(item.ended == "released" for item in associations),
            last_closed_mono_us=max(ends, default=None),
            revision=self.revision,
            steps=self.steps,
        )


class Arrivals:
    """Follows the instance table; a restarted worker reloads what still receives."""

    def __init__(self, connection: sqlite3.Connection, at: Instant) -> None:
        self._connection = connection
        self._boot_id = at.boot_id
        self._studies: dict[int, Arriving] = {}
        self._unprepared: deque[ArrivedInstance] = deque()
        self._last_id = last_instance_id(connection)
        for instance in instances_of_receiving(connection):
            if instance.instance_id > self._last_id:
                break  # stored since the line above: ``follow`` will meet it
            # A stamp of an earlier boot may lie ahead of this boot's clock.
            stored_mono_us = min(instance.stored_mono_us, at.mono_us)
            self._studies.setdefault(instance.study_id, Arriving()).add(instance, stored_mono_us)
            self._unprepared.append(instance)

    def follow(self) -> bool:
        """Read what was stored since the last call; True when there was anything."""
        batch = instances_after(self._connection, self._last_id, limit=_BATCH)
        for instance in batch:
            self._last_id = instance.instance_id
            self._add(instance)
        return bool(batch)

    def receiving(self) -> tuple[tuple[StudyProgress, Arriving], ...]:
        """Return the studies that still receive, and forget those that no longer do."""
        progress = {item.study_id: item for item in receiving_studies(self._connection)}
        for study_id in self._studies.keys() - progress.keys():
            del self._studies[study_id]
        return tuple(
            (item, self._studies[study_id])
            for study_id, item in progress.items()
            if study_id in self._studies
        )

    def known(self) -> Iterable[Arriving]:
        """Return what is held of the studies that still received when they were last asked for."""
        return self._studies.values()

    def is_receiving(self, study_id: int) -> bool:
        """Whether a study still received images when it was last asked for."""
        return study_id in self._studies

    def associations(self, study_id: int) -> tuple[AssociationProgress, ...]:
        """Return the associations that brought instances of a study."""
        return associations_of(self._connection, study_id, boot_id=self._boot_id)

    def ask_for_steps(self, study_id: int, arriving: Arriving) -> None:
        """Read what the scanner said of its procedure steps, where anything is new."""
        found = steps_of_study(self._connection, arriving.study_instance_uid, boot_id=self._boot_id)
        if arriving.steps_seen == (arriving.instances, found):
            return
        arriving.steps_seen = (arriving.instances, found)
        completed = [item.step_id for item in found if item.state is ProcedureStepState.COMPLETED]
        missing = missing_images(self._connection, study_id, completed)
        arriving.steps = _steps_view(found, missing) if found else None

    def reconsider(self) -> None:
        """Look at every study again: something other than an instance changed."""
        for arriving in self._studies.values():
            arriving.look_again_mono_us = 0

    def next_unprepared(self) -> ArrivedInstance | None:
        """Return the next instance that may be prepared while its study arrives."""
        while self._unprepared:
            instance = self._unprepared.popleft()
            if instance.study_id in self._studies:
                return instance
        return None

    def _add(self, instance: ArrivedInstance) -> None:
        arriving = self._studies.get(instance.study_id)
        if arriving is None:
            arriving = self._studies[instance.study_id] = Arriving()
            for earlier in instances_of_study(
                self._connection, instance.study_id, before_id=instance.instance_id
            ):
                arriving.add(earlier, earlier.stored_mono_us)
        arriving.add(instance, instance.stored_mono_us)
        self._unprepared.append(instance)


def _steps_view(steps: tuple[StepProgress, ...], missing: MissingImages) -> StepsView:
    states = [item.state for item in steps]
    return StepsView(
        in_progress=states.count(ProcedureStepState.IN_PROGRESS),
        completed=states.count(ProcedureStepState.COMPLETED),
        discontinued=states.count(ProcedureStepState.DISCONTINUED),
        completed_without_images=sum(
            item.state is ProcedureStepState.COMPLETED and not item.images for item in steps
        ),
        missing_images=missing.all,
        missing_of_begun_series=missing.of_begun_series,
        changed_mono_us=max(item.changed_mono_us for item in steps),
    )
