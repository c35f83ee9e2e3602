"""Storage commitment and procedure steps: the node's side and the courier's, from the settings."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sqlite3
from collections.abc import Callable, Iterator

from dicom_node.commitment import commitment_services
from dicom_node.mpps import procedure_step_services
from dicom_node.normalized import Service
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.clock import Clock
from edge_runtime.config.peers import CallerSettings, PeerSettings
from edge_runtime.config.settings import Settings
from edge_runtime.outputs.commitment_report import CommitmentReporter, FindPeer
from edge_runtime.outputs.errands import ErrandCourier, Performer
from edge_runtime.outputs.forgetting import Forgetting
from edge_runtime.outputs.mpps_relay import MppsRelay
from edge_runtime.outputs.retry import RetryRule
from edge_runtime.process import database_path, spool_path
from edge_runtime.store.commitments import SqliteCommitments
from edge_runtime.store.database import connect
from edge_runtime.store.procedure_steps import SqliteProcedureSteps

MakeAddress = Callable[[PeerSettings], PeerAddress]
"""Translates settings into those of the DICOM leaf."""


@contextlib.contextmanager
def open_services(settings: Settings, clock: Clock) -> Iterator[tuple[Service, ...]]:
    """What the node serves beside C-STORE and C-ECHO, on a database connection of its own."""
    commitment, mpps = settings.node.commitment, settings.node.mpps
    with contextlib.ExitStack() as stack:

        def connection() -> sqlite3.Connection:
            return stack.enter_context(contextlib.closing(connect(database_path(settings))))

        commitments = SqliteCommitments(
            connection(),
            clock,
            patience_us=_us(commitment.patience_s),
            max_open=commitment.max_open,
        )
        steps = SqliteProcedureSteps(
            connection(),
            clock,
            relays=settings.outputs.mpps.peer is not None,
            max_steps=mpps.max_steps,
        )
        yield (
            *commitment_services(commitments, max_references=commitment.max_references),
            *procedure_step_services(steps),
        )


def errand_couriers(
    settings: Settings,
    clock: Clock,
    *,
    make_address: MakeAddress,
    timeouts: RequestorTimeouts,
    rule: RetryRule,
) -> dict[str, ErrandCourier]:
    """The courier's threads for what is owed beside the deliveries."""
    performers: list[Performer] = [
        CommitmentReporter(
            peer_finder(settings, make_address),
            calling_ae_title=settings.node.ae_title,
            spool_dir=spool_path(settings),
            hold_us=_us(settings.node.commitment.hold_s),
            timeouts=timeouts,
        )
    ]
    upstream = settings.outputs.mpps.peer
    if upstream is not None:
        performers.append(
            MppsRelay(
                make_address(upstream),
                calling_ae_title=settings.node.ae_title,
                timeouts=timeouts,
            )
        )
    return {
        performer.kind.value: ErrandCourier(
            performer,
            database=database_path(settings),
            clock=clock,
            rule=rule,
            lease_us=_us(settings.courier.lease_s),
            owner=f"courier-{os.getpid()}",
        )
        for performer in performers
    }


def make_forgetting(settings: Settings, connection: sqlite3.Connection, clock: Clock) -> Forgetting:
    """What the courier does now and then for the sake of privacy."""
    return Forgetting(connection, clock, steps_kept_us=_us(settings.node.mpps.keep_s))


def peer_finder(settings: Settings, make_address: MakeAddress) -> FindPeer:
    """Return the rule that says where the reports to a caller go."""
    node = settings.node

    def find(ae_title: str, address: str) -> PeerAddress:
        for caller in node.callers:
            if caller.ae_title == ae_title and _calls_from(caller, address):
                if caller.report_to is not None:
                    return make_address(caller.report_to)
                break
        return PeerAddress(ae_title=ae_title, host=address, port=node.commitment.report_port)

    return find


def _calls_from(caller: CallerSettings, address: str) -> bool:
    if caller.address is None:
        return True
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found in ipaddress.ip_network(caller.address)


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
