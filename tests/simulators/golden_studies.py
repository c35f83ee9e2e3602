"""Golden studies of the small bright package: one suspected, one not, one not analysed."""

from __future__ import annotations

from pathlib import Path

from engines.golden_studies import STUDIES_FILE, STUDIES_FOLDER
from simulators.ct_slices import write_ct_slice

_STUDIES = """
[[studies]]
folder = "bright"
outcome = "SUSPECTED"
findings = [{ key = "bright", probability = 0.9608, tolerance = 0.001 }]

[[studies]]
folder = "dark"
outcome = "NOT_SUSPECTED"
findings = [{ key = "bright", probability = 0.0392, tolerance = 0.001 }]

[[studies]]
folder = "gap"
outcome = "NOT_ANALYSED"
reason = "missing_slices"
"""


def write_golden_studies(package: Path) -> None:
    """Add them to a package, which has to be sealed again."""
    for name, hu, numbers in (
        ("bright", 90, (1, 2, 3, 4)),
        ("dark", 10, (1, 2, 3, 4)),
        ("gap", 90, (1, 2, 3, 5)),
    ):
        study = package / STUDIES_FOLDER / name
        study.mkdir(parents=True)
        for number in numbers:
            write_ct_slice(study / f"{number}.dcm", number=number, hu=hu)
    (package / STUDIES_FILE).write_text(_STUDIES)
