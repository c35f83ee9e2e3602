"""Our top-level names are generic (docs/decisions/0001): nobody else may install one of them."""

from __future__ import annotations

import importlib.metadata
import re
from collections import defaultdict

OURS = {"edge_runtime", "engines", "dicom_node", "telemetry", "tools", "firmware_configs"}
NOT_A_MODULE = re.compile(r"\.(dist-info|data|pth|libs)$")


def installers_by_top_level_name() -> dict[str, set[str]]:
    """Which installed distributions bring which top-level modules and packages."""
    installers = defaultdict(set)
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or ():
            top = file.parts[0]
            if top != ".." and not NOT_A_MODULE.search(top):
                installers[top.split(".")[0]].add(distribution.metadata["Name"].lower())
    return installers


def test_no_dependency_installs_a_package_with_a_name_of_ours() -> None:
    installers = installers_by_top_level_name()
    foreign = {name: installers.get(name, set()) - {"edge-triage"} for name in OURS}
    assert foreign == {name: set() for name in OURS}


def test_names_of_packages_and_of_single_modules_are_seen() -> None:
    installers = installers_by_top_level_name()
    assert installers["pydicom"] == {"pydicom"}
    assert installers["typing_extensions"] == {"typing_extensions"}
