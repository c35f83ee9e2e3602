"""``docs/states.md`` is drawn from the transition tables; here it is drawn again and compared.

``EDGE_TRIAGE_UPDATE_GOLDEN=1 python -m pytest tests/golden/test_state_diagrams.py`` writes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from edge_runtime.model.analysis import ANALYSIS_TRANSITIONS, AnalysisState
from edge_runtime.model.delivery import DELIVERY_TRANSITIONS, DeliveryState
from edge_runtime.model.errand import ERRAND_TRANSITIONS, ErrandState
from edge_runtime.model.model_package import PACKAGE_TRANSITIONS, PackageState
from edge_runtime.model.procedure_step import PROCEDURE_STEP_TRANSITIONS, ProcedureStepState
from edge_runtime.model.study import STUDY_TRANSITIONS, StudyState

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "states.md"
UPDATE = "EDGE_TRIAGE_UPDATE_GOLDEN"
INTRODUCTION = """# States

Drawn from the transition tables in `edge_runtime/model/` by `tests/golden/test_state_diagrams.py`;
do not edit. The same tables stand as `CHECK`s and triggers in the database.
"""
DIAGRAMS: tuple[tuple[str, Mapping[tuple[Any, Any], Any], type[Enum]], ...] = (
    ("Study: are images still expected?", STUDY_TRANSITIONS, StudyState),
    ("Analysis: one study, one model, one revision", ANALYSIS_TRANSITIONS, AnalysisState),
    ("Delivery: one analysis, one channel", DELIVERY_TRANSITIONS, DeliveryState),
    ("Errand: one message owed to a peer", ERRAND_TRANSITIONS, ErrandState),
    (
        "Procedure step: how far the scanner is",
        PROCEDURE_STEP_TRANSITIONS,
        ProcedureStepState,
    ),
    (
        "Model package: from its installation to its retirement",
        PACKAGE_TRANSITIONS,
        PackageState,
    ),
)


def draw(table: Mapping[tuple[Any, Any], Any], states: type[Enum]) -> str:
    """Return a Mermaid state diagram: the first state is where things begin."""
    arrows = [
        f"    {source.name} --> {target.name}: {_words(event)}"
        for (source, event), target in table.items()
    ]
    begin = f"    [*] --> {next(iter(states)).name}"
    ends = [
        f"    {state.name} --> [*]"
        for state in states
        if state not in {source for source, _ in table}
    ]
    return "\n".join(["stateDiagram-v2", begin, *arrows, *ends])


def document() -> str:
    """Return the whole file."""
    parts = [
        f"\n## {title}\n\n```mermaid\n{draw(table, states)}\n```\n"
        for title, table, states in DIAGRAMS
    ]
    return INTRODUCTION + "".join(parts)


def _words(event: Enum) -> str:
    return event.name.lower().replace("_", " ")


def test_the_document_shows_the_tables_as_they_are() -> None:
    if os.environ.get(UPDATE):
        DOCUMENT.write_text(document(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == document(), f"set {UPDATE}=1 to draw it again"
