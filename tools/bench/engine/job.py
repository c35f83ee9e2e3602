"""What every runner is told, in a form that goes through a command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engines.contract import AcceleratorOptions, EngineOptions, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Which model is run, and how it may use the machine."""

    package: str
    """Its folder."""
    plans: str
    """The folder of plans that were or will be built."""
    threads: int
    precision: str
    gpu: int
    memory_bytes: int
    most_items: int

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Job:
        """Read it again."""
        return cls(**json.loads(text))

    def options(self) -> EngineOptions:
        """Return what our engines are told."""
        return EngineOptions(
            intra_op_threads=self.threads,
            accelerator=AcceleratorOptions(
                folder=Path(self.plans),
                precision=Precision(self.precision),
                device_index=self.gpu,
                memory_bytes=self.memory_bytes,
                most_items=self.most_items,
            ),
        )
