"""What the device has written: the database, its alarms and dead deliveries, the egress ledger."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from edge_runtime.clock import SystemClock
from edge_runtime.process import database_path
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.database import load_migrations
from edge_runtime.store.health import read_health
from edge_runtime.store.processes import Role
from telemetry.ledger import LEDGER_NAME, verify
from tools.doctor.findings import Advice, Context, Finding, failed, fine, warning
from tools.doctor.own_device import is_visible, locked_roles, read_database, running_processes

_QUICK_CHECK_S = 30.0
_PROGRESS_STEPS = 100_000
"""Instructions of SQLite's machine between two looks at the watch."""

_NOT_YET = "there is no database yet; the first start makes it"
_REBUILD = (
    "stop the device, move triage.db, triage.db-wal and triage.db-shm out of device.state_dir and "
    "keep them as evidence; the next start indexes the files of the spool anew"
)

ALARMS: Mapping[AlarmCode, Advice] = MappingProxyType(
    {
        AlarmCode.COMMITMENT_DEAD: Advice(
            meaning="scanners that could not be told what is stored here",
            remedy="let the scanner listen where 'report_to' of its entry in node.callers says, or "
            "turn storage commitment off there, then run `edge-triage resend`",
        ),
        AlarmCode.CONFLICTING_DUPLICATE: Advice(
            meaning="images that came again with other content",
            remedy="find out on the scanner or the router who changes images under the same UID",
        ),
        AlarmCode.DELIVERY_DEAD: Advice(
            meaning="results that were given up on the way to a peer",
            remedy="mend the peer, whose check stands in this list, then run `edge-triage resend`; "
            "until then these results stand on the worklist page only",
        ),
        AlarmCode.DISK_PRESSURE: Advice(
            meaning="the disk is almost full, and no study may leave to make room",
            remedy="see the check 'retention'",
        ),
        AlarmCode.ENGINE_FALLBACK: Advice(
            meaning="models that do not run on the engine preferred here",
            remedy="see the check 'engines'",
        ),
        AlarmCode.ENGINE_MISSING: Advice(
            meaning="models that no engine runs",
            remedy="see the check 'engines'",
        ),
        AlarmCode.FILE_MISSING: Advice(
            meaning="stored files that are not in the spool any more",
            remedy="find out who removes files below device.state_dir/spool, and send these "
            "studies again",
        ),
        AlarmCode.MODEL_REFUSED: Advice(
            meaning="models that this device refused",
            remedy="look at the checks of the models in this list",
        ),
        AlarmCode.MPPS_RELAY_DEAD: Advice(
            meaning="procedure steps that were given up on the way upstream",
            remedy="mend the system that outputs.mpps.peer names, then run `edge-triage resend`",
        ),
        AlarmCode.RETENTION_OVERDUE: Advice(
            meaning="studies stay longer than retention.keep_s",
            remedy="see the check 'retention'",
        ),
    }
)
"""What each alarm means, and what to do."""


def check_database(context: Context) -> Finding:
    """Can this release use the database, and is it whole?"""
    path = database_path(context.settings)
    if not is_visible(path):
        return fine(_NOT_YET)
    try:
        with read_database(path) as connection:
            return _judge_database(connection)
    except sqlite3.OperationalError as error:
        return failed(
            f"the database {path} cannot be read: {error}",
            "run this as the user that runs the device; if it does, look at the checks of the disk",
        )
    except sqlite3.DatabaseError:
        return failed(f"{path} is damaged, or no database at all", _REBUILD)


def _judge_database(connection: sqlite3.Connection) -> Finding:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    newest = len(load_migrations())
    if version > newest:
        return failed(
            f"the database has schema {version}, this release knows {newest}",
            "install the release that wrote it, or a later one",
        )
    is_whole = _quick_check(connection)
    if is_whole is None:
        return warning(
            f"the database could not be checked within {_QUICK_CHECK_S:g} s",
            "run `edge-triage doctor` again when the device is quiet",
        )
    if not is_whole:
        return failed("the database is damaged: SQLite's quick check finds faults", _REBUILD)
    return fine(f"schema {version} of {newest}, whole")


def _quick_check(connection: sqlite3.Connection) -> bool | None:
    """False where SQLite finds faults; None where it did not finish in time."""
    deadline_s = time.monotonic() + _QUICK_CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline_s, _PROGRESS_STEPS)
    try:
        answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError:
        if time.monotonic() > deadline_s:
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)
    return bool(answer == "ok")


def check_alarms(context: Context) -> Finding:
    """Does any alarm stand?"""
    path = database_path(context.settings)
    if not is_visible(path):
        return fine(_NOT_YET)
    try:
        with read_database(path) as connection:
            alarms = Counter(alarm.code for alarm in standing_alarms(connection))
    except sqlite3.Error:
        return _unread()
    if not alarms:
        return fine("none stands")
    return warning(
        "; ".join(f"{alarms[code]} × {code.value}: {ALARMS[code].meaning}" for code in alarms),
        "; ".join(ALARMS[code].remedy for code in alarms),
    )


def check_deliveries(context: Context) -> Finding:
    """Was anything given up?"""
    path = database_path(context.settings)
    if not is_visible(path):
        return fine(_NOT_YET)
    try:
        with read_database(path) as connection:
            health = read_health(connection, context.settings.device.state_dir, SystemClock().now())
    except sqlite3.Error:
        return _unread()
    if health.dead_deliveries:
        return warning(
            f"{health.dead_deliveries} results were given up after "
            f"{context.settings.courier.retry.max_attempts} tries "
            "(courier.retry.max_attempts) or a final refusal: their receivers do not have them",
            "mend the receiver, whose check stands in this list, then run `edge-triage resend`; "
            "until then these results stand on the worklist page only",
        )
    return fine("none was given up")


def _unread() -> Finding:
    return warning("the database cannot be read", "see the check 'database'")


def check_processes(context: Context) -> Finding:
    """If the device runs, do all of its processes?"""
    running = running_processes(context.settings)
    starting = locked_roles(context.settings) - running.keys()
    if not running and not starting:
        return fine("the device does not run")
    missing = [role.value for role in Role if role not in running and role not in starting]
    if missing:
        return failed(
            f"the device runs without {', '.join(missing)}",
            "look at the log of what is missing, mend what it names, and restart the device; right "
            "after a start, try again in some seconds",
        )
    if starting:
        return warning(
            f"not ready yet: {', '.join(sorted(role.value for role in starting))}",
            "try again in some seconds; a worker that builds an engine for a GPU takes minutes, "
            "once (its log says `engine.building`), and studies wait for it",
        )
    return fine("the device runs with all of its processes")


def check_ledger(context: Context) -> Finding:
    """Is the record of what left the site whole?"""
    path = context.settings.device.state_dir / "ledger" / LEDGER_NAME
    if not is_visible(path):
        return fine("nothing has left the site yet")
    try:
        report = verify(path)
    except OSError as error:
        return failed(
            f"the egress ledger {path} cannot be read: {error.strerror}",
            "run this as the user that runs the device; if it does, look at the checks of the disk",
        )
    if not report.is_intact:
        faults = Counter(finding.fault.value for finding in report.findings)
        first = min(finding.line for finding in report.findings)
        return failed(
            "the egress ledger was changed after it was written: "
            f"{', '.join(f'{count} × {fault}' for fault, count in faults.items())}, "
            f"the first in line {first}",
            f"keep {path} as evidence, tell the privacy officer, and move it away; a new chain "
            "begins then",
        )
    return fine(f"{report.entries} entries, the chain holds")
