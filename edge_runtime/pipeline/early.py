"""What models were asked while studies still arrive, kept until the study is decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from edge_runtime.pipeline.inference import ItemKey, Plan, Source
from engines.runner import Outputs
from engines.scheduling import ItemTime, WaitingItem

PAUSE_US = 30_000
"""Longer than between two images of a scanner that sends without a break."""


PATIENCE_US = (30_000_000, 10_000_000, 2_000_000, 500_000)
"""How long an item may wait for its turn, by the urgency of its model; the first is of shadows."""


@dataclass(slots=True)
class EarlyRun:
    """One model's work on one study that still arrives."""

    begun_mono_us: int
    """When the first image came."""
    sources: dict[int, Source] = field(default_factory=dict)
    """Images that are prepared, by instance id."""
    outputs: dict[ItemKey, Outputs] = field(default_factory=dict)
    looked_at: int = 0
    """How many images there were when it was last looked for items to run."""
    look_at: int = 1
    """Look again when there are so many images, or none has come for a while."""
    noted_mono_us: int = 0
    """When the last image came."""
    planned: Plan | None = None
    """As it was found at the last look."""
    ready: dict[ItemKey, int] = field(default_factory=dict)
    """Items of the plan that can be run, and their places."""

    def is_due(self, now_mono_us: int) -> bool:
        """Enough has come since the last look for another item, or nothing more will soon."""
        if self.ready:
            return False  # what was found is run first
        count = len(self.sources)
        has_paused = now_mono_us - self.noted_mono_us >= PAUSE_US
        return count >= self.look_at or (count > self.looked_at and has_paused)


class EarlyRuns:
    """By study and model; what is forgotten is run again when the study is decided."""

    def __init__(self, *, most_items: int = 4096) -> None:
        self._runs: dict[tuple[int, str], EarlyRun] = {}
        self._most_items = most_items
        self._times: dict[str, ItemTime] = {}

    def note(self, study_id: int, model_key: str, source: Source, now_mono_us: int) -> None:
        """An image was prepared for a model."""
        run = self._runs.setdefault((study_id, model_key), EarlyRun(begun_mono_us=now_mono_us))
        run.sources[source.instance_id] = source
        run.noted_mono_us = now_mono_us

    def due(self, now_mono_us: int) -> Iterator[tuple[int, str, EarlyRun]]:
        """Return what is worth a look, the study that began first at the front."""
        for (study_id, model_key), run in self._runs.items():
            if run.is_due(now_mono_us) and len(run.outputs) < self._most_items:
                yield study_id, model_key, run

    def run_of(self, study_id: int, model_key: str) -> EarlyRun:
        """Return the run of a study that ``waiting`` has named."""
        return self._runs[study_id, model_key]

    def waiting(
        self, model_key: str, urgency: int, most_items: int
    ) -> dict[WaitingItem, tuple[int, ItemKey]]:
        """Return the items of a model that can be run, and whose they are.

        Args:
            model_key: The model's.
            urgency: The model's, 0 to 3.
            most_items: Of one study: no more can be in the next batch.
        """
        return {
            WaitingItem(
                key=(study_id, key),
                urgency=urgency,
                since_us=run.begun_mono_us,
                due_us=run.begun_mono_us + PATIENCE_US[urgency],
            ): (study_id, key)
            for (study_id, of_model), run in self._runs.items()
            if of_model == model_key
            for key in islice(run.ready, most_items)
        }

    def time_of(self, model_key: str) -> ItemTime:
        """Return how long the model takes for an item."""
        return self._times.get(model_key, ItemTime())

    def note_time(self, model_key: str, items: int, took_us: int) -> None:
        """A batch of so many items took so long, preparation of its input included."""
        self._times[model_key] = self.time_of(model_key).after(items, took_us)

    def known(self, study_id: int, model_key: str) -> Mapping[ItemKey, Outputs]:
        """Return what has been run."""
        run = self._runs.get((study_id, model_key))
        return {} if run is None else run.outputs

    def forget(self, study_id: int, model_key: str) -> None:
        """The study is decided, or no longer arrives."""
        self._runs.pop((study_id, model_key), None)
