"""Images are prepared by the fused kernel, and stay on the device until the model has run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engines.batching import batch_of, joined
from engines.kernel.staging import DeviceInput, FusedStaging, StagedPicture
from engines.package import InputRule
from engines.preprocessing.collecting import Item
from engines.preprocessing.values import StoredImage, StoredPixels
from engines.runner import ItemRun, Outputs, batches_of

if TYPE_CHECKING:
    from engines.tensorrt.engine import TensorRtEngine


class FusedRunner:
    """A ``Runner`` whose pictures are those of a staging, on the device of its engine."""

    def __init__(self, rule: InputRule, engine: TensorRtEngine, staging: FusedStaging) -> None:
        """Both are entered, and left by whoever entered them.

        Args:
            rule: Of the package.
            engine: Of its model.
            staging: Of its steps, on the engine's device.
        """
        self._rule = rule
        self._engine = engine
        self._staging = staging

    @property
    def engine(self) -> TensorRtEngine:
        """What computes."""
        return self._engine

    def place_for(self, image: StoredImage) -> StoredPixels | None:
        """See ``Runner``: in pinned memory, from which it is copied to the device."""
        return self._staging.place_for(image)

    def prepare(self, image: StoredImage) -> StagedPicture:
        """See ``Runner``; the device may still work at it."""
        return self._staging.add(image)

    def run(self, runs: Sequence[ItemRun[StagedPicture]]) -> Outputs:
        """See ``Runner``."""
        count = _items_of(runs)
        return joined(self._answers(runs, count), count)

    def run_series(self, pictures: Iterable[StagedPicture], items: Sequence[Item]) -> Outputs:
        """See ``Runner``."""
        run = self._staging.series_run(list(pictures), items)
        if self._rule.layout.is_volume:
            return self._outputs(self._staging.input_of([run]))
        return self.run([run])

    def _answers(
        self, runs: Sequence[ItemRun[StagedPicture]], count: int
    ) -> Iterator[tuple[int, Outputs]]:
        batch = batch_of(self._engine, self._rule, count)
        for part in batches_of(runs, batch.size):
            missing = batch.size - _items_of(part) if batch.is_fixed else 0
            last = replace(part[-1], places=part[-1].places[-1:])
            filled = [*part, *[last] * missing]
            yield _items_of(filled), self._outputs(self._staging.input_of(filled))

    def _outputs(self, made: DeviceInput) -> Outputs:
        return self._engine.run_staged({self._rule.name: made})


def _items_of(runs: Iterable[ItemRun[StagedPicture]]) -> int:
    return sum(len(run.places) for run in runs)
