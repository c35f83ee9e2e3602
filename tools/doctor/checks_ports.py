"""Our own ports: free, or held by our own device, which then has to answer."""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import socket
from collections.abc import Iterator

from dicom_node.errors import AssociationRejectedError, DicomNodeError
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.scu import verify_peer
from edge_runtime.config.settings import Settings
from edge_runtime.store.processes import Role
from tools.doctor.findings import Context, Finding, failed, fine, warning
from tools.doctor.own_device import locked_roles

ECHO_TIMEOUTS = RequestorTimeouts(connect_s=1.5, association_s=2.0, answer_s=1.0)
"""Together less than a network check may take; a lost SYN is sent again after 1 s."""
_PAGE_TIMEOUT_S = 3.0


def check_node_port(context: Context) -> Finding:
    """Can the node listen, or does it?"""
    settings = context.settings
    node = settings.node
    if node.tls is not None and node.tls.only:
        return fine("there is no port for clear text (node.tls.only)")
    return _judge_port(settings, Role.NODE, node.bind, node.port) or _ask_node(settings)


def check_node_tls_port(context: Context) -> Finding:
    """Can the node listen for TLS, or does it?"""
    settings = context.settings
    node = settings.node
    if node.tls is None:
        return fine("there is no port for TLS (node.tls)")
    port = node.tls.port
    # The doctor has no certificate of its own that the node would trust, so it does not call.
    return _judge_port(settings, Role.NODE, node.bind, port, key="node.tls.port") or fine(
        f"our node listens on port {port}"
    )


def check_web_port(context: Context) -> Finding:
    """Can the page be served, or is it?"""
    settings = context.settings
    web = settings.web
    return _judge_port(settings, Role.WEB, web.bind, web.port) or _ask_page(settings)


def _judge_port(
    settings: Settings, role: Role, bind: str, port: int, *, key: str | None = None
) -> Finding | None:
    """Judge a port; None where our own process holds it.

    ``key`` is the setting that it stands in, by default ``port`` of the role's section.
    """
    key = key or f"{role.value}.port"
    is_ours = role in locked_roles(settings)
    try:
        with asked_for(bind, port):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE and is_ours:
            return None
        return _cannot_listen(role, bind, port, key, error.errno)
    if is_ours:
        return warning(
            f"{role.value} runs but does not listen on port {port}: it may be starting, or it was "
            "started with other settings",
            "try again in some seconds, then restart the device with this file; "
            f"{key} takes effect at a start only",
        )
    return fine(f"{bind} port {port} is free")


@contextlib.contextmanager
def asked_for(bind: str, port: int) -> Iterator[None]:
    """Ask for the port as the device would, and give it back.

    Nothing listens, so that a device that starts meanwhile gets it all the same: both ask to reuse
    the address, and Linux then keeps a port only from those who come after a listener.

    Raises:
        OSError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        asker.bind((bind, port))
        yield


def _cannot_listen(role: Role, bind: str, port: int, key: str, code: int | None) -> Finding:
    name = role.value
    if code == errno.EADDRINUSE:
        return failed(
            f"port {port} is taken by another program, so the {name} cannot start",
            f"stop that program (`ss -ltnp 'sport = :{port}'` names it; if it is this device, run "
            f"the doctor as the device's user), or set another {key}",
        )
    if code == errno.EADDRNOTAVAIL:
        return failed(
            f"{bind} is no address of this machine, so the {name} cannot start",
            f"set {name}.bind to one that `ip address` lists, or to 0.0.0.0 for all of them",
        )
    if code in {errno.EACCES, errno.EPERM}:
        return failed(
            f"this user may not listen on port {port}, so the {name} cannot start",
            f"set {key} to 1024 or higher, or give the service CAP_NET_BIND_SERVICE",
        )
    reason = "unknown reason" if code is None else errno.errorcode.get(code, str(code))
    return failed(
        f"{bind} port {port} cannot be had ({reason})", f"set another {name}.bind or {key}"
    )


def _ask_node(settings: Settings) -> Finding:
    node = settings.node
    peer = PeerAddress(ae_title=node.ae_title, host=_reachable(node.bind), port=node.port)
    calling = node.callers[0].ae_title if node.callers else node.ae_title
    try:
        verify_peer(peer, calling_ae_title=calling, timeouts=ECHO_TIMEOUTS)
    except AssociationRejectedError as error:
        if error.transient:
            return warning(
                f"our node runs on port {node.port}, with as many associations as it takes",
                "look which peers keep associations open, or raise node.max_associations",
            )
        # Only listed callers, or callers from their own addresses, are let in.
        return fine(f"our node runs on port {node.port}; node.callers does not let the doctor in")
    except DicomNodeError as error:
        return failed(
            f"our node holds port {node.port} but does not answer C-ECHO ({type(error).__name__})",
            "restart the device; the node's log says what it was doing",
        )
    return fine(f"our node runs on port {node.port} and answers C-ECHO")


def _ask_page(settings: Settings) -> Finding:
    web = settings.web
    connection = http.client.HTTPConnection(_reachable(web.bind), web.port, timeout=_PAGE_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return failed(
            f"our page holds port {web.port} but does not answer",
            "restart the device; the log of web says what it was doing",
        )
    finally:
        connection.close()
    if status == http.HTTPStatus.OK:
        return fine(f"our page runs on port {web.port} and is up to date")
    return failed(
        f"our page answers with {status}: it does not show what the database holds",
        "look at the log of web, at the disk and at the database below, then restart the device",
    )


def _reachable(bind: str) -> str:
    """An address at which a listener on ``bind`` can be called from here."""
    address = ipaddress.ip_address(bind)
    if not address.is_unspecified:
        return bind
    return "127.0.0.1" if isinstance(address, ipaddress.IPv4Address) else "::1"
