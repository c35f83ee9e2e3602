"""``edge-triage engines list``: what this machine has, what runs, and what was built."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass

from rich import box
from rich.table import Table

from edge_runtime.config.settings import Settings
from edge_runtime.pipeline.models import engine_options, preference_of
from edge_runtime.pipeline.packages import find_packages
from edge_runtime.process import database_path, engines_path
from edge_runtime.store.engines import EngineInUse, engines_in_use
from engines.available import Availability, find_available
from engines.choosing import Preference
from engines.plans.store import PlanEntry, PlanStore
from engines.shipped import shipped_packages
from tools.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)
from tools.doctor.own_device import read_database
from tools.engines.subjects import settings_of

_SHORT_DIGITS = 12
_MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    preference: Preference
    available: tuple[Availability, ...]
    in_use: tuple[EngineInUse, ...]
    plans: tuple[PlanEntry, ...]


def list_engines(config: ConfigOption = DEFAULT_CONFIG, *, json: JsonOption = False) -> None:
    """List the engines of this machine, what runs each model, and the plans that were built."""
    with explained_errors():
        found = _find(settings_of(config))
    if json:
        print_json(_as_json(found))
    else:
        _show(found)


def _find(settings: Settings) -> _Found:
    """Look, and change nothing.

    Raises:
        PackageError: the package that the engines are tried with is not what its maker sealed.
        PlanStoreError: the folder of plans cannot be used.
    """
    folder = engines_path(settings)
    (trial,) = find_packages((shipped_packages()["head_ct_phantom"],))
    return _Found(
        preference=preference_of(settings.engine),
        available=find_available(trial.model, engine_options(settings.engine, folder)),
        in_use=_read_in_use(settings),
        plans=PlanStore(folder).entries() if folder.is_dir() else (),
    )


def _read_in_use(settings: Settings) -> tuple[EngineInUse, ...]:
    path = database_path(settings)
    if not path.is_file():
        return ()
    with contextlib.suppress(sqlite3.Error), read_database(path) as connection:
        return engines_in_use(connection)
    return ()


def _as_json(found: _Found) -> dict[str, object]:
    return {
        "preference": [backend.value for backend in found.preference.order],
        "fallback": found.preference.may_fall_back,
        "engines": [
            {
                "engine": each.backend.value,
                "available": not each.obstacle,
                "version": each.version or None,
                "runs_on": each.runs_on or None,
                "obstacle": each.obstacle or None,
                "place": _place(each, found.preference),
            }
            for each in found.available
        ],
        "in_use": [
            {
                "model": each.model_key,
                "engine": each.engine or None,
                "refusal": each.refusal or None,
                "passed_over": [
                    {
                        "engine": item.backend.value,
                        "obstacle": item.obstacle.value,
                        "detail": item.detail,
                    }
                    for item in each.passed_over
                ],
            }
            for each in found.in_use
        ],
        "plans": [_plan_json(entry) for entry in found.plans],
    }


def _place(each: Availability, preference: Preference) -> int | None:
    return preference.order.index(each.backend) + 1 if each.backend in preference.order else None


def _plan_json(entry: PlanEntry) -> dict[str, object]:
    key, proof = entry.key, entry.proof
    return {
        "digest": entry.digest,
        "bytes": entry.size_bytes,
        "engine": key.backend.value if key else None,
        "version": key.library_version if key else None,
        "onnx_sha256": key.onnx_sha256 if key else None,
        "gpu": key.gpu_name if key else None,
        "precision": key.numbers if key else None,
        "dla_core": key.dla_core if key else None,
        "proven": proof.passed if proof else None,
        "proven_against": proof.reference if proof else None,
    }


def _show(found: _Found) -> None:
    table = _table("engine", "preferred", "version", "runs on")
    for each in found.available:
        place = _place(each, found.preference)
        table.add_row(
            each.backend.value,
            f"{place}." if place else "",
            each.version,
            "not here" if each.obstacle else each.runs_on,
        )
    out.print(table, markup=False)
    for each in found.available:
        if each.obstacle:
            out.print(f"{each.backend.value}: {each.obstacle}", markup=False)
    if len(found.preference.order) > 1 and not found.preference.may_fall_back:
        out.print("engine.fallback is off: only the first of the preference may run.")
    if found.in_use:
        out.print(_in_use_table(found), markup=False)
    else:
        out.print("No worker has chosen an engine yet.")
    if found.plans:
        out.print(_plans_table(found), markup=False)


def _in_use_table(found: _Found) -> Table:
    table = _table("model", "runs on")
    for each in found.in_use:
        table.add_row(each.model_key, each.engine or f"nothing: {each.refusal}")
        for item in each.passed_over:
            table.add_row("", f"not {item.backend.value}: {item.detail}")
    return table


def _plans_table(found: _Found) -> Table:
    table = _table("plan", "engine", "size", "built for")
    for entry in found.plans:
        key, proof = entry.key, entry.proof
        if key is None:
            table.add_row(
                entry.digest[:_SHORT_DIGITS], "", "", "not sealed by this device: it is never used"
            )
            continue
        proven = "not proven yet" if proof is None else "proven" if proof.passed else "refused"
        dla = "" if key.dla_core is None else f", DLA {key.dla_core}"
        table.add_row(
            entry.digest[:_SHORT_DIGITS],
            f"{key.backend.value} {key.library_version}",
            f"{entry.size_bytes / _MB:.1f} MB",
            f"{key.gpu_name}, {key.numbers}{dla}, model {key.onnx_sha256[:_SHORT_DIGITS]}, "
            f"{proven}",
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in headings[:-1]:
        table.add_column(heading, no_wrap=True)
    table.add_column(headings[-1], overflow="fold", min_width=20)
    return table
