"""Does what the site prefers run its models, as the worker says?"""

from __future__ import annotations

import dataclasses
import sqlite3

from edge_runtime.config.settings import Settings
from edge_runtime.pipeline.models import engine_options
from edge_runtime.process import database_path, engines_path
from edge_runtime.store.engines import EngineInUse, engines_in_use
from engines.contract import EngineOptions
from engines.errors import PlanStoreError
from engines.plans.sealed_folder import QUARANTINE
from engines.plans.store import PlanStore
from tools.doctor.findings import Context, Finding, failed, fine, warning, worst
from tools.doctor.own_device import is_visible, read_database


def check_engines(context: Context) -> Finding:
    """What runs each model, what was passed over for it, and was a plan put aside?"""
    return worst([_judge_use(context.settings), *_judge_quarantine(context.settings)])


def _judge_quarantine(settings: Settings) -> list[Finding]:
    """A plan there was replaced; that it had to be may be an attack, or a disk that fails."""
    plans = PlanStore(engines_path(settings))
    try:
        found = plans.quarantined()
    except PlanStoreError as error:
        return [warning("the plans of engines cannot be looked at", str(error))]
    if not found:
        return []
    count = "1 plan lies" if len(found) == 1 else f"{len(found)} plans lie"
    return [
        warning(
            f"{count} in quarantine, the latest because: {found[-1].reason or 'not written down'}",
            "none of them runs, and what was needed was built again; move "
            f"{plans.folder / QUARANTINE} away once it was looked at, and keep it as evidence if "
            "nobody changed files on purpose",
        )
    ]


def _judge_use(settings: Settings) -> Finding:
    path = database_path(settings)
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
    if not each.passed_over and each.preparation_obstacle:
        return warning(
            f"{each.model_key} runs on {each.engine}, but the processor prepares its images, which "
            f"takes longer ({each.preparation_obstacle})",
            "mend that and restart the worker",
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
