"""The process ``node``: the storage SCP over spool and index."""

from __future__ import annotations

import contextlib
import ipaddress
import threading

from dicom_node.admission import PeerRule
from dicom_node.reconcile import reconcile
from dicom_node.scp import NodeSettings, StorageNode
from edge_runtime.clock import SystemClock
from edge_runtime.config.settings import CallerSettings, Settings
from edge_runtime.pipeline.assembly import reopens
from edge_runtime.process import Pulse, database_path, spool_path
from edge_runtime.store.database import connect
from edge_runtime.store.inbox import SqliteInbox

_BEAT_POLL_S = 0.2


def run(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Accept associations and store what they bring."""
    clock = SystemClock()
    with contextlib.closing(connect(database_path(settings))) as connection:
        inbox = SqliteInbox(connection, clock, reopens=reopens)
        inbox.close_lost_associations()
        storage = StorageNode(
            _node_settings(settings), spool_folder=spool_path(settings), inbox=inbox
        )
        report = reconcile(storage.spool, inbox, inbox.known_paths())
        inbox.report_missing(frozenset(report.missing))
        with storage:
            pulse.ready()
            while not stop.wait(_BEAT_POLL_S):
                pulse.beat()
    return 0


def _node_settings(settings: Settings) -> NodeSettings:
    node = settings.node
    return NodeSettings(
        ae_title=node.ae_title,
        bind_address=node.bind,
        port=node.port,
        require_called_ae_title=node.require_called_ae_title,
        peers=tuple(_peer_rule(caller) for caller in node.callers),
        admit_unknown_peers=not node.callers,
        max_associations=node.max_associations,
        max_pdu_bytes=node.max_pdu_bytes,
        max_instance_bytes=node.max_instance_bytes,
        min_free_bytes=node.min_free_bytes,
        idle_timeout_s=node.idle_timeout_s,
        stop_grace_s=settings.device.stop_grace_s / 2,
        private_sop_classes=node.private_sop_classes,
    )


def _peer_rule(caller: CallerSettings) -> PeerRule:
    networks = () if caller.address is None else (ipaddress.ip_network(caller.address),)
    return PeerRule(ae_title=caller.ae_title, networks=networks)
