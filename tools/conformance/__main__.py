"""``python -m tools.conformance`` writes ``docs/conformance-statement.md`` of this checkout."""

from __future__ import annotations

from pathlib import Path

from tools.conformance.statement import document

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance-statement.md"

if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
    print(DOCUMENT)
