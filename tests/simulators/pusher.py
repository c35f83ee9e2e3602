"""A sender of small and large instances that is as fast as it can be."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Sequence

from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.requestor import Connection, Outgoing, RequestorTimeouts
from dicom_node.status import StoreStatus
from simulators.load import Template
from simulators.lone_node import LoneNode

_TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=15.0, answer_s=60.0)
_LARGER_EVERY = 8


class Pusher:
    """Sends instances of one study, mostly of the first template; keeps what was acknowledged."""

    def __init__(self, node: LoneNode, templates: Sequence[Template], number: int) -> None:
        self._node = node
        self._templates = templates
        self._study = number
        self._lock = threading.Lock()
        self._held: dict[str, bytes] = {}

    def held(self) -> dict[str, bytes]:
        """What has been acknowledged by now."""
        with self._lock:
            return dict(self._held)

    def push_until(self, stop: threading.Event) -> None:
        """Send on one association."""
        with contextlib.closing(self._connection()) as connection:
            for number in itertools.count():
                if stop.is_set():
                    return
                self._store(connection, number)

    def _connection(self) -> Connection:
        return Connection(
            self._node.address,
            calling_ae_title="SCANNER",
            pairs=[_outgoing(each, b"").pair for each in self._templates],
            timeouts=_TIMEOUTS,
        )

    def _store(self, connection: Connection, number: int) -> None:
        turn, is_small = divmod(number, _LARGER_EVERY)
        template = self._templates[0 if is_small else turn % len(self._templates)]
        file = template.instance(self._study, number)
        data_set = file[template.data_set_offset :]
        outgoing = _outgoing(template, data_set, uid=template.uid(self._study, number))
        assert connection.store(outgoing) == StoreStatus.SUCCESS
        with self._lock:
            self._held[outgoing.sop_instance_uid] = data_set


def _outgoing(template: Template, data_set: bytes, *, uid: str = "") -> Outgoing:
    return Outgoing(
        sop_class_uid=template.kind.sop_class,
        sop_instance_uid=uid,
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        data_set=data_set,
    )
