"""``edge-triage models schema``: the JSON Schema of ``package.toml``."""

from __future__ import annotations

from typing import Any

from engines.package import ModelPackage
from tools.console import print_json


def schema() -> None:
    """Print the JSON Schema of package.toml: every key with its meaning, bounds and default."""
    print_json(package_schema())


def package_schema() -> dict[str, Any]:
    """The schema of ``package.toml``, closed, with every key's meaning."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ModelPackage.model_json_schema(),
    }
