"""Slices that were prepared on arrival, kept until their study is decided or memory is needed."""

from __future__ import annotations

from collections import OrderedDict

from edge_runtime.pipeline.preprocess import PreparedSlice


class PreparedSlices:
    """A bounded memory; what it does not hold is prepared again from the spool.

    The study that was touched longest ago gives way first. A slice that does not fit beside its own
    study's slices is not kept.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._studies: OrderedDict[tuple[int, str], dict[int, PreparedSlice]] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Return the memory that the kept pixels take."""
        return self._bytes

    def get(self, study_id: int, model_name: str, instance_id: int) -> PreparedSlice | None:
        """Return a kept slice."""
        return self._studies.get((study_id, model_name), {}).get(instance_id)

    def put(
        self, study_id: int, model_name: str, instance_id: int, prepared: PreparedSlice
    ) -> None:
        """Keep a slice if there is room, or room can be made by forgetting other studies."""
        slices = self._studies.setdefault((study_id, model_name), {})
        self._studies.move_to_end((study_id, model_name))
        size = prepared.hu.nbytes
        own = sum(kept.hu.nbytes for kept in slices.values())
        if instance_id in slices or own + size > self._max_bytes:
            return
        while self._bytes + size > self._max_bytes:
            self.forget(*next(iter(self._studies)))
        slices[instance_id] = prepared
        self._bytes += size

    def forget(self, study_id: int, model_name: str) -> None:
        """Drop a study's slices, as prepared for one model."""
        for prepared in self._studies.pop((study_id, model_name), {}).values():
            self._bytes -= prepared.hu.nbytes
