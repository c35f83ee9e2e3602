"""Slices that were prepared on arrival, kept until their study is decided or memory is needed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from edge_runtime.pipeline.preprocess import PreparedSlice


@dataclass(slots=True)
class _Kept:
    slices: dict[int, PreparedSlice] = field(default_factory=dict)
    size_bytes: int = 0


class PreparedSlices:
    """A bounded memory; what it does not hold is prepared again from the spool.

    The study that was touched longest ago gives way first. A slice that does not fit beside its own
    study's slices is not kept.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._studies: OrderedDict[tuple[int, str], _Kept] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Return the memory that the kept pixels take."""
        return self._bytes

    def get(self, study_id: int, model_name: str, instance_id: int) -> PreparedSlice | None:
        """Return a kept slice."""
        kept = self._studies.get((study_id, model_name))
        return None if kept is None else kept.slices.get(instance_id)

    def put(
        self, study_id: int, model_name: str, instance_id: int, prepared: PreparedSlice
    ) -> None:
        """Keep a slice if there is room, or room can be made by forgetting other studies."""
        kept = self._studies.setdefault((study_id, model_name), _Kept())
        self._studies.move_to_end((study_id, model_name))
        size = prepared.hu.nbytes
        if instance_id in kept.slices or kept.size_bytes + size > self._max_bytes:
            return
        while self._bytes + size > self._max_bytes:
            self.forget(*next(iter(self._studies)))
        kept.slices[instance_id] = prepared
        kept.size_bytes += size
        self._bytes += size

    def forget(self, study_id: int, model_name: str) -> None:
        """Drop a study's slices, as prepared for one model."""
        kept = self._studies.pop((study_id, model_name), None)
        if kept is not None:
            self._bytes -= kept.size_bytes
