"""Whatever a package holds, it is refused with the reason: quickly, in little memory, in words.

The whole corpus is verified once, in one process; each test looks at what became of one package.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.hostile_package import HostilePackage
from simulators.hostile_packages import CORPUS

TESTS = Path(__file__).parents[3]
PACKAGES = ("edge_runtime", "engines", "dicom_node", "telemetry", "tools")
MOST_MIB = 512
"""Above what the libraries and a good package take; the largest golden bomb holds 64."""
UNPICKLERS = re.compile(r"(pickle|dill|cloudpickle|shelve|joblib|marshal)\b")
UNPICKLING = re.compile(r"pickle|dill|shelve|joblib|marshal|torch\.load")

Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    done = subprocess.run(
        [sys.executable, "-m", "simulators.hostile_run", tmp_path_factory.mktemp("corpus")],
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return {outcome["name"]: outcome for outcome in map(json.loads, done.stdout.splitlines())}


def test_the_corpus_is_large_and_its_names_are_its_own() -> None:
    assert len(CORPUS) >= 40
    assert len({package.name for package in CORPUS}) == len(CORPUS)


def test_the_package_that_they_were_made_of_is_good(outcomes: dict[str, Outcome]) -> None:
    assert not outcomes["good"]["refused"]
    assert outcomes["good"]["escaped"] is None


@pytest.mark.parametrize("package", CORPUS, ids=lambda package: package.name)
def test_a_hostile_package_is_refused_with_its_reason(
    outcomes: dict[str, Outcome], package: HostilePackage
) -> None:
    outcome = outcomes[package.name]
    assert outcome["escaped"] is None
    assert outcome["refused"]
    assert outcome["error"] in package.error.split(" or ")
    assert package.reason
    assert package.reason in outcome["reason"]
    assert outcome["reason"].isprintable()
    assert len(outcome["reason"]) < 1100
    assert outcome["seen"] == [], "it wrote a file, ran something or loaded a pickle"
    assert outcome["is_untouched"]


def test_all_hostile_packages_together_take_little_memory(outcomes: dict[str, Outcome]) -> None:
    most = max(outcome["resident_mib"] for outcome in outcomes.values())
    assert most - outcomes["good"]["resident_mib"] < MOST_MIB


def test_the_watch_sees_a_pickle_and_a_file() -> None:
    """Else the tests above would prove nothing."""
    script = (
        "import pickle\n"
        "from simulators.watch import Watch\n"
        "watch = Watch()\n"
        "watch.is_on = True\n"
        "pickle.loads(pickle.dumps(OSError))\n"
        "open('/dev/null', 'w').close()\n"
        "watch.is_on = False\n"
        "print(watch.seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['pickle.find_class', 'open /dev/null']\n"


def test_no_module_of_ours_can_load_a_pickle() -> None:
    root = TESTS.parent
    found = [
        f"{path.relative_to(root)}: {words}"
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if UNPICKLING.search(text := path.read_text(encoding="utf-8"))
        for words in _unpickling(ast.parse(text))
    ]
    assert found == []


def _unpickling(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if UNPICKLERS.match(each.name))
        elif isinstance(node, ast.ImportFrom) and UNPICKLERS.match(node.module or ""):
            yield f"from {node.module}"
        elif isinstance(node, ast.Call):
            named = {each.arg: ast.unparse(each.value) for each in node.keywords}
            is_unsafe_torch = ast.unparse(node.func) == "torch.load"
            is_unsafe_torch &= named.get("weights_only") != "True"
            if is_unsafe_torch or named.get("allow_pickle", "False") != "False":
                yield ast.unparse(node)
