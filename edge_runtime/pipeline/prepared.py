"""Images that were prepared on arrival, kept until their study is decided or memory is needed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from engines.runner import Prepared


@dataclass(slots=True)
class _Kept:
    images: dict[int, Prepared] = field(default_factory=dict)
    size_bytes: int = 0


class PreparedImages:
    """A bounded memory; what it does not hold is prepared again from the spool.

    The study that was touched longest ago gives way first. An image that does not fit beside its
    own study's is not kept.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._studies: OrderedDict[tuple[int, str], _Kept] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Return the memory that the kept images take, wherever their runners have it."""
        return self._bytes

    def get(self, study_id: int, model_key: str, instance_id: int) -> Prepared | None:
        """Return a kept image."""
        kept = self._studies.get((study_id, model_key))
        return None if kept is None else kept.images.get(instance_id)

    def put(self, study_id: int, model_key: str, instance_id: int, prepared: Prepared) -> None:
        """Keep an image if there is room, or room can be made by forgetting other studies."""
        kept = self._studies.setdefault((study_id, model_key), _Kept())
        self._studies.move_to_end((study_id, model_key))
        size = prepared.nbytes
        if instance_id in kept.images or kept.size_bytes + size > self._max_bytes:
            return
        while self._bytes + size > self._max_bytes:
            self.forget(*next(iter(self._studies)))
        kept.images[instance_id] = prepared
        kept.size_bytes += size
        self._bytes += size

    def forget(self, study_id: int, model_key: str) -> None:
        """Drop a study's images, as prepared for one model."""
        kept = self._studies.pop((study_id, model_key), None)
        if kept is not None:
            self._bytes -= kept.size_bytes
