"""The process ``node``: the storage SCP over spool and index."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Iterator, Sequence

from dicom_node.admission import Coercion, PeerRule
from dicom_node.coercion import check_coercions
from dicom_node.reconcile import reconcile
from dicom_node.scp import NodeSettings, StorageNode, TlsPort
from dicom_node.tls import ServerCertificates
from edge_runtime.app.services import open_services
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.config.node_settings import NodeTlsSettings
from edge_runtime.config.peers import CallerSettings, CoercionSettings
from edge_runtime.config.settings import Settings
from edge_runtime.pipeline.retention import RetentionRules
from edge_runtime.pipeline.selection import reopens
from edge_runtime.pipeline.sweeping import RetentionThread, resume_departures
from edge_runtime.process import Pulse, database_path, spool_path
from edge_runtime.store.callers import CallerNotes
from edge_runtime.store.database import connect
from edge_runtime.store.inbox import SqliteInbox

_BEAT_POLL_S = 0.2


def run(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Accept associations and store what they bring."""
    clock = SystemClock()
    with (
        contextlib.closing(connect(database_path(settings))) as connection,
        open_services(settings, clock) as services,
        _open_notes(settings, clock) as notes,
    ):
        inbox = SqliteInbox(connection, clock, reopens=reopens)
        inbox.close_lost_associations()
        node = node_settings(settings)
        storage = StorageNode(
            node,
            spool_folder=spool_path(settings),
            inbox=inbox,
            services=services,
            on_refused=None if notes is None else notes.note,
        )
        # Before the scan: files of a study that was leaving must not be taken for new ones.
        resume_departures(connection, storage.spool)
        report = reconcile(storage.spool, inbox, inbox.known_paths())
        inbox.report_missing(frozenset(report.missing))
        retention = RetentionThread(
            database_path(settings), storage.spool, clock, retention_rules(settings)
        )
        with retention, storage, _second_door(settings, node, storage):
            pulse.ready()
            while not stop.wait(_BEAT_POLL_S):
                pulse.beat()
                if notes is not None:
                    notes.write()
    return 0


@contextlib.contextmanager
def _open_notes(settings: Settings, clock: Clock) -> Iterator[CallerNotes | None]:
    """Where refused callers are noted, while the device is learning."""
    if not settings.node.learning:
        yield None
        return
    with contextlib.closing(connect(database_path(settings))) as connection:
        notes = CallerNotes(connection, clock)
        yield notes
        notes.flush()


def retention_rules(settings: Settings) -> RetentionRules:
    """Translate settings into the units of retention."""
    retention = settings.retention
    return RetentionRules(
        keep_us=int(retention.keep_s * 1_000_000),
        least_keep_us=int(min(retention.least_keep_s, retention.keep_s) * 1_000_000),
        free_bytes_target=settings.node.min_free_bytes + retention.headroom_bytes,
    )


def _second_door(
    settings: Settings, node: NodeSettings, storage: StorageNode
) -> contextlib.AbstractContextManager[object]:
    if not settings.node.stow.enabled:
        return contextlib.nullcontext()
    from edge_runtime.app.stow import stow_door  # noqa: PLC0415  costs memory, so only when on

    return stow_door(settings.node.stow, node, storage)


def node_settings(settings: Settings) -> NodeSettings:
    """Translate settings into those of the DICOM leaf."""
    node = settings.node
    return NodeSettings(
        ae_title=node.ae_title,
        bind_address=node.bind,
        port=node.port,
        require_called_ae_title=node.require_called_ae_title,
        peers=tuple(_peer_rule(caller) for caller in node.callers),
        admit_unknown_peers=not node.callers and not node.learning,
        tls=None if node.tls is None else _tls_port(node.tls),
        max_associations=node.max_associations,
        max_pdu_bytes=node.max_pdu_bytes,
        max_instance_bytes=node.max_instance_bytes,
        min_free_bytes=node.min_free_bytes,
        journal_bytes=node.journal_bytes,
        idle_timeout_s=node.idle_timeout_s,
        stop_grace_s=settings.device.stop_grace_s / 2,
        private_sop_classes=node.private_sop_classes,
        max_pending_per_address=node.max_pending_per_address,
        fast_path=node.fast_path,
    )


def _tls_port(tls: NodeTlsSettings) -> TlsPort:
    return TlsPort(certificates=server_certificates(tls), port=tls.port, is_only_port=tls.only)


def server_certificates(tls: NodeTlsSettings) -> ServerCertificates:
    """Translate settings into those of the DICOM leaf.

    Raises:
        TlsFileError: They contradict each other.
    """
    return ServerCertificates(
        certificate_file=tls.certificate_file,
        key_file=tls.key_file,
        ca_file=tls.ca_file,
        require_client_certificate=tls.require_client_certificate,
    )


def _peer_rule(caller: CallerSettings) -> PeerRule:
    networks = () if caller.address is None else (ipaddress.ip_network(caller.address),)
    return PeerRule(
        ae_title=caller.ae_title,
        networks=networks,
        may_store=caller.may_store,
        clear_text=caller.clear_text,
        certificate_sha256=caller.certificate_sha256,
        storage_commitment=caller.storage_commitment,
        quota_bytes=caller.quota_bytes,
        coercions=coercions_of(caller.coercions),
    )


def coercions_of(settings: Sequence[CoercionSettings]) -> tuple[Coercion, ...]:
    """Translate settings into those of the DICOM leaf.

    Raises:
        CoercionNotAllowedError: An attribute that must stay, or a value that cannot be written.
    """
    found = tuple(Coercion(keyword=each.attribute, value=each.value) for each in settings)
    check_coercions(found)
    return found
