"""Every TensorRT from 10.3 to 11.4, and TensorRT-RTX, has the names that we use.

``tests/golden/tensorrt_names.json`` says which; ``tests/golden/tensorrt_names.py`` writes it.
"""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from golden.tensorrt_names import TABLE, all_used_names, as_table, names_by_version

import engines.tensorrt
from engines.contract import Backend
from engines.errors import EngineUnavailableError
from engines.tensorrt.interface import Feature
from engines.tensorrt.library import (
    TensorRtLibrary,
    find_features,
    missing_names,
    used_names,
    wrap_module,
)

BINDINGS = "EDGE_TRIAGE_TENSORRT_BINDINGS"

OLDEST = {Feature.STRONGLY_TYPED_FLAG, Feature.TIMING_CACHE}


@pytest.fixture(scope="module")
def table() -> dict[str, frozenset[str]]:
    """Names by version."""
    content = json.loads(TABLE.read_text(encoding="ascii"))
    everywhere = set(content["everywhere"])
    return {
        version: frozenset(
            everywhere
            | {name for name, having in content["somewhere"].items() if version in having}
        )
        for version in content["versions"]
    }


def module_with(names: frozenset[str]) -> Any:
    """An object of which those names can be asked."""
    module = SimpleNamespace(__version__="0.0")
    for name in sorted(names):
        place = module
        for part in name.split("."):
            if not hasattr(place, part):
                setattr(place, part, SimpleNamespace())
            place = getattr(place, part)
    return module


def test_the_table_is_of_the_names_that_are_used() -> None:
    content = json.loads(TABLE.read_text(encoding="ascii"))
    known = set(content["everywhere"]) | set(content["somewhere"])
    assert known == all_used_names(), "run tests/golden/tensorrt_names.py on a folder of bindings"


def test_the_table_spans_the_versions_that_we_promise(table: dict[str, frozenset[str]]) -> None:
    majors = [".".join(version.split(".")[:2]) for version in table]
    assert majors == ["10.3", "10.7", "10.13", "10.16", "11.0", "11.4", "tensorrt_rtx 1.7"]


def test_every_version_has_what_is_required(table: dict[str, frozenset[str]]) -> None:
    for version, names in table.items():
        assert not used_names().required - names, version
        assert missing_names(module_with(names), used_names()) == (), version


def test_features_are_found_by_name(table: dict[str, frozenset[str]]) -> None:
    found = {
        version: {feature.name for feature in find_features(module_with(names))}
        for version, names in table.items()
    }
    oldest = {feature.name for feature in OLDEST}
    assert found["10.3.0"] == oldest
    assert found["10.7.0.post1"] == oldest
    assert "ADJUST_FOR_DLA" in found["10.16.1.11"] & found["11.0.0.114"] & found["11.4.0.106"]
    rtx = found["tensorrt_rtx 1.7.1.116"]
    assert {"TARGETS", "RUNTIME_CACHE", "EAGER_KERNELS"} <= rtx
    # It has the names of the timing cache, which do nothing and warn.
    assert "TIMING_CACHE" not in rtx
    assert all("TIMING_CACHE" in names for version, names in found.items() if "rtx" not in version)


def test_a_cache_whose_names_have_changed_is_not_used_and_no_timing_cache_in_its_place(
    table: dict[str, frozenset[str]],
) -> None:
    rtx = table["tensorrt_rtx 1.7.1.116"]
    for name in used_names().optional[Feature.RUNTIME_CACHE]:
        found = find_features(module_with(rtx - {name}))
        assert not {Feature.RUNTIME_CACHE, Feature.TIMING_CACHE} & found, name


def test_every_feature_is_of_use_somewhere() -> None:
    folder = Path(engines.tensorrt.__file__).parent
    sources = [path for path in folder.glob("*.py") if path.name != "interface.py"]
    used = {
        each.attr
        for path in sources
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "Feature"
    }
    assert {feature.name for feature in Feature} <= used


def test_a_version_without_a_name_is_refused_and_the_name_told(
    table: dict[str, frozenset[str]],
) -> None:
    newest = table["11.4.0.106"]
    required = used_names().required
    # A class of which names are left is there.
    leaves = {
        name for name in required if not any(other.startswith(f"{name}.") for other in newest)
    }
    assert len(leaves) > 40
    for removed in leaves:
        module = module_with(newest - {removed})
        with pytest.raises(EngineUnavailableError, match="install one of them") as caught:
            wrap_module(Backend.TENSORRT, module)
        assert f"lacks {removed};" in str(caught.value)


def test_the_rtx_that_is_installed_has_what_the_table_says(
    rtx: TensorRtLibrary, table: dict[str, frozenset[str]]
) -> None:
    version = f"tensorrt_rtx {rtx.version}"
    if version not in table:
        pytest.skip(f"the table is of another version than {rtx.version}")
    assert rtx.features == find_features(module_with(table[version]))


def test_the_table_is_what_the_bindings_say() -> None:
    folder = os.environ.get(BINDINGS)
    if not folder:
        pytest.skip(
            f"{BINDINGS} names no folder of unpacked bindings of TensorRT; their licence is the "
            "user's to accept"
        )
    assert TABLE.read_text(encoding="ascii") == as_table(names_by_version(Path(folder)))
