"""The node's second door; imported only when it is to be opened, so that it costs nothing else."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from dicom_node.admission import PeerRule
from dicom_node.errors import NodeStartError, TlsFileError
from dicom_node.scp import NodeSettings, StorageNode
from dicom_node.stow import StowDoor, StowSettings
from dicom_node.stow_request import StowClient
from dicom_node.tls import ServerTls
from edge_runtime.app.node import coercions_of
from edge_runtime.config import node_settings as schema


def stow_door(settings: schema.StowSettings, node: NodeSettings, storage: StorageNode) -> StowDoor:
    """Make the door to ``storage``; it has the node's certificate, if the node has one.

    Raises:
        NodeStartError: The certificates cannot be used.
    """
    return StowDoor(
        StowSettings(
            bind_address=settings.bind,
            port=settings.port,
            path_prefix=settings.path_prefix,
            clients=tuple(_client(each) for each in settings.clients),
            private_sop_classes=node.private_sop_classes,
            max_requests=settings.max_requests,
            max_parts=settings.max_instances_per_request,
            max_pending_per_address=node.max_pending_per_address,
            idle_timeout_s=settings.idle_timeout_s,
            min_bytes_per_s=settings.min_bytes_per_s,
            # The first door still needs its own after this one.
            stop_grace_s=node.stop_grace_s / 4,
        ),
        open_session=storage.open_session,
        check_room=storage.spool.check_room,
        tls=_read_certificates(node),
    )


def _read_certificates(node: NodeSettings) -> ServerTls | None:
    """The node's own; a client shows its token, and a certificate only if one is pinned."""
    if node.tls is None:
        return None
    try:
        return ServerTls(replace(node.tls.certificates, require_client_certificate=False))
    except TlsFileError as error:
        raise NodeStartError(f"the STOW-RS door has no certificate for TLS: {error}") from error


def _client(settings: schema.StowClientSettings) -> StowClient:
    networks = () if settings.address is None else (ipaddress.ip_network(settings.address),)
    return StowClient(
        token_sha256=settings.token_sha256,
        rule=PeerRule(
            ae_title=settings.name,
            networks=networks,
            may_store=settings.may_store,
            certificate_sha256=settings.certificate_sha256,
            quota_bytes=settings.quota_bytes,
            coercions=coercions_of(settings.coercions),
        ),
    )
