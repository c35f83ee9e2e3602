"""A runner in a process of its own, from the side that gives orders."""

from __future__ import annotations

from pathlib import Path

from tools.bench.children import Child
from tools.bench.engine.answers import Layer, Ready, Timed
from tools.bench.engine.errors import RunnerFailedError
from tools.bench.engine.job import Job
from tools.bench.engine.names import RunnerName
from tools.bench.ingest import process_tree

_LIMIT_S = 1200.0
"""Building a plan on a small board takes minutes."""


class RunnerProcess:
    """One model, loaded by one runner; it ends with the ``with`` block."""

    def __init__(self, name: RunnerName, job: Job, folder: Path) -> None:
        """Start it; ``folder`` is for its log."""
        self.name = name
        log = folder / f"{name.value}.log"
        self._child = Child(
            ["-m", "tools.bench.engine.child", name.value, job.text(), str(log)],
            log,
            _LIMIT_S,
            self._failure,
        )

    def __enter__(self) -> RunnerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def wait_ready(self) -> Ready | str:
        """Wait until the model is loaded; say why where it does not run here.

        Raises:
            RunnerFailedError: it ended instead.
        """
        answer = self._child.receive()
        if not isinstance(answer, dict):
            raise self._child.failed("does not say what it is")
        refused = answer.get("refused")
        return Ready(**answer) if refused is None else str(refused)

    def time(self, batch: int, *, seconds: float, least: int) -> Timed:
        """Let it run a batch of so many items for so long, and so often at least.

        Raises:
            RunnerFailedError: it ended, or takes too long.
        """
        answer = self._ask({"batch": batch, "seconds": seconds, "least": least})
        if not isinstance(answer, dict) or "refused" in answer:
            raise self._child.failed("broke down")
        return Timed(**{**answer, "latencies_us": tuple(answer["latencies_us"])})

    def layers(self, batch: int) -> tuple[Layer, ...]:
        """Return where its time goes; empty where it cannot tell.

        Raises:
            RunnerFailedError: it ended, or takes too long.
        """
        answer = self._ask({"batch": batch})
        if answer is not None and not isinstance(answer, list):
            raise self._child.failed("broke down")
        return tuple(Layer(**layer) for layer in answer or ())

    @property
    def peak_rss_bytes(self) -> int:
        """The most that it ever held, all libraries included."""
        return process_tree.peak_rss_bytes(self._child.pid)

    def _ask(self, order: dict[str, object]) -> object:
        self._child.send(order)
        answer: object = self._child.receive()
        return answer

    def _failure(self, what: str, last: str) -> RunnerFailedError:
        return RunnerFailedError(
            f"the runner {self.name.value} {what}; it last said: {last}. Mend what is installed "
            "for it, or measure without it (--engine, --peers)"
        )
