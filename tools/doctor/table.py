"""All checks, in the order in which they are shown: each rests on those above it."""

from __future__ import annotations

from edge_runtime.config.settings import Settings
from tools.doctor.checks_broker import check_broker, check_certificates
from tools.doctor.checks_callers import check_callers
from tools.doctor.checks_certificates import check_node_certificates
from tools.doctor.checks_codecs import codec_checks
from tools.doctor.checks_encryption import check_encryption
from tools.doctor.checks_engines import check_engines
from tools.doctor.checks_host import check_clock, check_limits, check_python, check_sqlite
from tools.doctor.checks_models import check_audit, check_models, model_checks
from tools.doctor.checks_pacs import check_forward_pacs, check_report_pacs
from tools.doctor.checks_ports import check_node_port, check_node_tls_port, check_web_port
from tools.doctor.checks_retention import check_retention
from tools.doctor.checks_storage import check_disk, check_file_system, check_state_dir
from tools.doctor.checks_store import (
    check_alarms,
    check_database,
    check_deliveries,
    check_ledger,
    check_processes,
)
from tools.doctor.findings import NETWORK_LIMIT_S, Check

CHECKS = (
    Check("python", check_python),
    Check("sqlite", check_sqlite),
    Check("clock", check_clock),
    Check("limits", check_limits),
    Check("state_dir", check_state_dir),
    Check("disk", check_disk),
    Check("file_system", check_file_system),
    Check("encryption", check_encryption),
    *codec_checks(),
    Check("models", check_models),
    Check("engines", check_engines),
    Check("database", check_database),
    Check("processes", check_processes),
    Check("alarms", check_alarms),
    Check("deliveries", check_deliveries),
    Check("retention", check_retention),
    Check("ledger", check_ledger),
    Check("audit", check_audit),
    Check("callers", check_callers),
    Check("port.node", check_node_port, NETWORK_LIMIT_S),
    Check("port.node_tls", check_node_tls_port, NETWORK_LIMIT_S),
    Check("certificates.node", check_node_certificates),
    Check("port.web", check_web_port, NETWORK_LIMIT_S),
    Check("pacs.structured_report", check_report_pacs, NETWORK_LIMIT_S),
    Check("pacs.forward", check_forward_pacs, NETWORK_LIMIT_S),
    Check("certificates", check_certificates),
    Check("broker", check_broker, NETWORK_LIMIT_S),
)


def checks_for(settings: Settings) -> tuple[Check, ...]:
    """Return all checks; those of single model packages stand behind that of all models."""
    place = next(index for index, check in enumerate(CHECKS) if check.name == "models") + 1
    return (*CHECKS[:place], *model_checks(settings), *CHECKS[place:])
