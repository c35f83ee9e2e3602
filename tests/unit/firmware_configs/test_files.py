from __future__ import annotations

import configparser
import importlib
from importlib import resources
from pathlib import Path

import pytest

from edge_runtime.app.node import node_settings
from edge_runtime.config.loading import load_settings
from edge_runtime.store.processes import Role
from edge_runtime.supervisor.services import SERVICES, Service

FILES = Path(str(resources.files("firmware_configs")))


def read_unit(role: Role) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have case
    unit.read(FILES / "systemd" / f"edge-triage-{role.value}.service", encoding="utf-8")
    return unit


def test_the_site_example_is_a_valid_settings_file() -> None:
    settings = load_settings(FILES / "sites" / "example.toml", {})
    assert settings.node.callers[0].ae_title == "CT01"
    assert settings.telemetry.tls


def test_the_tls_example_opens_a_port_for_tls_and_calls_the_pacs_by_it() -> None:
    settings = load_settings(FILES / "sites" / "tls.toml", {})
    policy = node_settings(settings).admission
    assert policy.requires_tls
    assert [rule.ae_title for rule in policy.peers if rule.clear_text] == ["OLDMR"]
    assert settings.outputs.structured_report.peer is not None
    assert settings.outputs.structured_report.peer.tls


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.role.value)
def test_each_unit_starts_what_the_table_of_services_names(service: Service) -> None:
    unit = read_unit(service.role)
    command = unit["Service"]["ExecStart"].split()
    assert command[1:5] == ["-m", "edge_runtime.process", service.role.value, service.entry_point]
    module, _, function = service.entry_point.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.role.value)
def test_each_unit_watches_as_patiently_as_the_table(service: Service) -> None:
    unit = read_unit(service.role)["Service"]
    assert unit["Type"] == "notify"
    assert float(unit["WatchdogSec"]) == service.watchdog_s
    assert float(unit["TimeoutStartSec"]) == service.start_limit_s
    assert float(unit["RestartSec"]) == service.first_restart_delay_s
    assert float(unit["RestartMaxDelaySec"]) == service.max_restart_delay_s


def test_the_worker_cannot_open_network_connections() -> None:
    assert read_unit(Role.WORKER)["Service"]["RestrictAddressFamilies"] == "AF_UNIX"


def test_the_target_wants_every_unit() -> None:
    target = (FILES / "systemd" / "edge-triage.target").read_text("utf-8")
    assert all(f"edge-triage-{role.value}.service" in target for role in Role)
