"""Does what the site prefers run its models, as the worker says?"""

from __future__ import annotations

import dataclasses
import sqlite3

from edge_runtime.config.settings import Settings
from edge_runtime.pipeline.models import engine_options
from edge_runtime.process import database_path, engines_path
from edge_runtime.store.engines import EngineInUse, engines_in_use
from engines.contract import EngineOptions
from tools.doctor.findings import Context, Finding, failed, fine, warning, worst
from tools.doctor.own_device import is_visible, read_database


def check_engines(context: Context) -> Finding:
    """What runs each model since the worker started, and what was passed over for it?"""
    path = database_path(context.settings)
    if not is_visible(path):
        return fine("the first start of the device chooses them")
    try:
        with read_database(path) as connection:
            engines = engines_in_use(connection)
    except sqlite3.Error:
        return warning("what runs cannot be read", "see the check 'database'")
    if not engines:
        return fine("the next start of the worker chooses them")
    return worst([_judge(each) for each in engines])


def _judge(each: EngineInUse) -> Finding:
    if not each.engine:
        return failed(
            f"nothing runs {each.model_key}, so its analyses fail or wait: {each.refusal}",
            "do what it says, then restart the worker; `edge-triage engines list` shows what this "
            "machine has",
        )
    if not each.passed_over:
        return fine(f"{each.model_key} runs on {each.engine}")
    reasons = "; ".join(f"{item.backend.value}: {item.detail}" for item in each.passed_over)
    others = " and ".join(item.backend.value for item in each.passed_over)
    return warning(
        f"{each.model_key} runs on {each.engine} ({reasons})",
        f"mend that and restart the worker, or take {others} out of engine.preference",
    )


def options_without_building(settings: Settings) -> EngineOptions:
    """Return the engines' options for a look that changes nothing."""
    options = engine_options(settings.engine, engines_path(settings))
    if options.accelerator is None:
        return options
    accelerator = dataclasses.replace(options.accelerator, may_build=False)
    return dataclasses.replace(options, accelerator=accelerator)
