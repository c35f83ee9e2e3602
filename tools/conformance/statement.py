"""The whole statement: a template with our words, and tables made from the code."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template

from dicom_node.contexts import TRANSFER_SYNTAXES
from dicom_node.requestor import _MAX_PDU_BYTES as REQUESTOR_PDU_BYTES
from edge_runtime.config.node_settings import NodeSettings
from edge_runtime.outputs.structured_report import _SERIES_NUMBER as SERIES_NUMBER
from tools.conformance import node_tables, report_tables, settings_tables

_TEMPLATE = Path(__file__).with_name("template.md")
_PLACE = re.compile(r"\$\{(\w+)\}")

_TABLES: Mapping[str, Callable[[], str]] = {
    "version": lambda: importlib.metadata.version("edge-triage"),
    "ae_title": lambda: NodeSettings().ae_title,
    "count_of_classes": node_tables.count_of_classes,
    "count_of_syntaxes": lambda: str(len(TRANSFER_SYNTAXES)),
    "identification": node_tables.identification,
    "service_contexts": node_tables.service_contexts,
    "transfer_syntaxes": node_tables.transfer_syntaxes,
    "storage_classes": node_tables.storage_classes,
    "store_statuses": node_tables.store_statuses,
    "rejections": node_tables.rejections,
    "commitment_statuses": node_tables.commitment_statuses,
    "commitment_failures": node_tables.commitment_failures,
    "procedure_step_statuses": node_tables.procedure_step_statuses,
    "stow_failures": node_tables.stow_failures,
    "attributes_read": node_tables.attributes_read,
    "coercions": node_tables.coercions,
    "character_sets": node_tables.character_sets,
    "tls_suites": node_tables.tls_suites,
    "handshake_faults": node_tables.handshake_faults,
    "node_timeouts": node_tables.node_timeouts,
    "requestor_pdu_bytes": lambda: f"{REQUESTOR_PDU_BYTES} bytes",
    "requestor_timeouts": report_tables.requestor_timeouts,
    "series_number": lambda: str(SERIES_NUMBER),
    "report_class": report_tables.report_class,
    "report_outcomes": report_tables.report_outcomes,
    "answers_to_stores": report_tables.answers_to_stores,
    "step_states": report_tables.step_states,
    "settings_node": settings_tables.node,
    "settings_callers": settings_tables.callers,
    "settings_tls": settings_tables.tls,
    "settings_commitment": settings_tables.commitment,
    "settings_mpps": settings_tables.mpps,
    "settings_stow": settings_tables.stow,
    "settings_stow_clients": settings_tables.stow_clients,
    "settings_peers": settings_tables.peers,
    "settings_retry": settings_tables.retry,
}


def document() -> str:
    """Return the statement.

    Raises:
        LookupError: The template and the tables do not fit each other.
    """
    template = _TEMPLATE.read_text(encoding="utf-8")
    if unplaced := set(_TABLES) - set(_PLACE.findall(template)):
        raise LookupError(f"no place in {_TEMPLATE.name} for: {', '.join(sorted(unplaced))}")
    return Template(template).substitute({name: make() for name, make in _TABLES.items()})
