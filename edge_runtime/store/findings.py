"""The findings of scored analyses, in the package's order."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edge_runtime.model.finding import FindingScore


def write_findings(
    connection: sqlite3.Connection, analysis_id: int, findings: Sequence[FindingScore]
) -> None:
    """Record what a model said. Runs in the transaction that decides the analysis."""
    connection.executemany(
        "INSERT INTO finding (analysis_id, place, key, probability, threshold, urgency) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [
            (analysis_id, place, each.key, each.probability, each.threshold, each.urgency)
            for place, each in enumerate(findings)
        ],
    )


def read_findings(
    connection: sqlite3.Connection, analysis_ids: Sequence[int]
) -> dict[int, tuple[FindingScore, ...]]:
    """Return the findings of those analyses that have any."""
    rows = connection.execute(
        f"SELECT * FROM finding WHERE analysis_id IN ({','.join('?' for _ in analysis_ids)}) "
        "ORDER BY analysis_id, place",
        analysis_ids,
    )
    found: dict[int, list[FindingScore]] = {}
    for row in rows:
        found.setdefault(row["analysis_id"], []).append(
            FindingScore(
                key=row["key"],
                probability=row["probability"],
                threshold=row["threshold"],
                urgency=row["urgency"],
            )
        )
    return {analysis_id: tuple(findings) for analysis_id, findings in found.items()}
