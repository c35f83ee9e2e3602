"""The rows of one step of the GPU check, written and read."""

from __future__ import annotations

from pathlib import Path

from tools.gpu_check.rows import RowFile, Verdict, read_rows


class Found:
    """The rows of one step, written and read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = RowFile(path, "step")

    def verdicts(self) -> dict[str, Verdict]:
        """By subject and what."""
        return {f"{row.subject}: {row.what}": row.verdict for row in read_rows(self.path)}

    def failed(self) -> list[str]:
        return [
            f"{row.subject}: {row.what} {row.value}"
            for row in read_rows(self.path)
            if row.verdict is Verdict.FAILED
        ]

    def value(self, what: str) -> str:
        """Of the only row about it."""
        (found,) = [row.value for row in read_rows(self.path) if row.what == what]
        return found
