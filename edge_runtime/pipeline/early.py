"""What models were asked while studies still arrive, kept until the study is decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edge_runtime.pipeline.inference import ItemKey, Outputs, Source

PAUSE_US = 30_000
"""Longer than between two images of a scanner that sends without a break."""


@dataclass(slots=True)
class EarlyRun:
    """One model's work on one study that still arrives."""

    sources: dict[int, Source] = field(default_factory=dict)
    """Images that are prepared, by instance id."""
    outputs: dict[ItemKey, Outputs] = field(default_factory=dict)
    looked_at: int = 0
    """How many images there were when it was last looked for items to run."""
    look_at: int = 1
    """Look again when there are so many images, or none has come for a while."""
    noted_mono_us: int = 0
    """When the last image came."""

    def is_due(self, now_mono_us: int) -> bool:
        """Enough has come since the last look for another item, or nothing more will soon."""
        count = len(self.sources)
        has_paused = now_mono_us - self.noted_mono_us >= PAUSE_US
        return count >= self.look_at or (count > self.looked_at and has_paused)


class EarlyRuns:
    """By study and model; what is forgotten is run again when the study is decided."""

    def __init__(self, *, most_items: int = 4096) -> None:
        self._runs: dict[tuple[int, str], EarlyRun] = {}
        self._most_items = most_items

    def note(self, study_id: int, model_key: str, source: Source, now_mono_us: int) -> None:
        """An image was prepared for a model."""
        run = self._runs.setdefault((study_id, model_key), EarlyRun())
        run.sources[source.instance_id] = source
        run.noted_mono_us = now_mono_us

    def due(self, now_mono_us: int) -> Iterator[tuple[int, str, EarlyRun]]:
        """Return what is worth a look, the study that began first at the front."""
        for (study_id, model_key), run in self._runs.items():
            if run.is_due(now_mono_us) and len(run.outputs) < self._most_items:
                yield study_id, model_key, run

    def known(self, study_id: int, model_key: str) -> Mapping[ItemKey, Outputs]:
        """Return what has been run."""
        run = self._runs.get((study_id, model_key))
        return {} if run is None else run.outputs

    def forget(self, study_id: int, model_key: str) -> None:
        """The study is decided, or no longer arrives."""
        self._runs.pop((study_id, model_key), None)
