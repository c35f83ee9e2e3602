"""A channel whose answers a test writes down; it implements ``outputs.contract.Sink``."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.model.delivery import Channel
from edge_runtime.outputs.contract import Receipt
from edge_runtime.store.deliveries import DeliveryJob


class ScriptedSink:
    """Gives the answers in order, the last one for ever; raises those that are exceptions."""

    def __init__(
        self,
        *answers: Receipt | Exception,
        channel: Channel = Channel.STRUCTURED_REPORT,
        during: Callable[[DeliveryJob], object] = lambda _job: None,
    ) -> None:
        """``during`` is called while a delivery is under way."""
        self._answers = list(answers)
        self._channel = channel
        self._during = during
        self.jobs: list[DeliveryJob] = []
        self.rests = 0

    @property
    def channel(self) -> Channel:
        return self._channel

    def deliver(self, job: DeliveryJob) -> Receipt:
        self.jobs.append(job)
        self._during(job)
        answer = self._answers[min(len(self.jobs), len(self._answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def rest(self) -> None:
        self.rests += 1
