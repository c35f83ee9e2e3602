"""Callers that the learning mode has met; who they are stays on the device's own terminal."""

from __future__ import annotations

import sqlite3
from ipaddress import ip_address

from dicom_node.admission import Refused, decide
from dicom_node.errors import HandshakeFault
from edge_runtime.app.node import node_settings
from edge_runtime.clock import SystemClock
from edge_runtime.process import database_path
from edge_runtime.store.callers import CallerView, list_callers
from tools.doctor.findings import Context, Finding, fine, warning
from tools.doctor.own_device import is_visible, read_database

_RECENT_US = 7 * 86_400 * 1_000_000
"""A caller that has been silent for a week has given up, or was somebody's try."""


def check_callers(context: Context) -> Finding:
    """Does anybody call without being let in?"""
    node = context.settings.node
    if not node.learning:
        return fine("learning is off (node.learning): refused callers are not noted")
    views = _recent_callers(context)
    if views is None:
        return warning("the callers cannot be read", "see the check 'database'")
    policy = node_settings(context.settings).admission
    refused = {
        view.call
        for view in views
        if isinstance(view.reason, HandshakeFault) or isinstance(decide(policy, view.call), Refused)
    }
    if not refused:
        return fine("learning is on; nobody called within a week who is not let in")
    return warning(
        f"{len(refused)} unknown callers within a week were not let in",
        "`edge-triage callers` shows who they are and the lines that would admit them; set "
        "node.learning = false when all is set up",
    )


def _recent_callers(context: Context) -> list[CallerView] | None:
    path = database_path(context.settings)
    if not is_visible(path):
        return []
    since_us = SystemClock().now().wall_us - _RECENT_US
    try:
        with read_database(path) as connection:
            views = list_callers(connection)
    except sqlite3.Error:
        return None
    return [each for each in views if each.last_seen_wall_us >= since_us and not _is_ours(each)]


def _is_ours(view: CallerView) -> bool:
    """The doctor asks the node from this machine, and may not be let in."""
    return ip_address(view.call.address).is_loopback
