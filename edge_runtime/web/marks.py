"""Stamps what readers saw and acknowledged; the only writes of the page."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from edge_runtime.model.clock import Instant, Mark
from edge_runtime.store.database import transaction
from edge_runtime.store.stamps import stamp
from edge_runtime.store.worklist import find_study, holds_study
from edge_runtime.web.lines import Shown


def mark_shown(connection: sqlite3.Connection, shown: Iterable[Shown], at: Instant) -> None:
    """Stamp outcomes as shown in a browser for the first time, unless the study left since."""
    with transaction(connection):
        for item in shown:
            if not holds_study(connection, item.study_id):
                continue
            stamp(
                connection,
                item.study_id,
                item.revision,
                Mark.FIRST_SEEN,
                at,
                subject=item.model_name,
            )


def mark_acknowledged(
    connection: sqlite3.Connection, study_key: str, analysis_ids: Collection[int], at: Instant
) -> int | None:
    """Stamp the outcomes that a reader saw and acknowledged; others of the study stay open.

    Returns:
        How many outcomes were acknowledged, or None when there is no such study.
    """
    with transaction(connection):
        detail = find_study(connection, study_key)
        if detail is None or detail.study.study_key != study_key:
            return None
        seen = [
            analysis
            for analysis in detail.study.analyses
            if analysis.analysis_id in analysis_ids and analysis.outcome is not None
        ]
        for analysis in seen:
            stamp(
                connection,
                detail.study.study_id,
                analysis.revision,
                Mark.ACKNOWLEDGED,
                at,
                subject=analysis.model_name,
            )
        return len(seen)
