"""The information system upstream: an MPPS SCP that keeps what it takes and answers as told."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from simulators.closing import ALWAYS_CLOSE

AE_TITLE = "RIS"
MPPS = "1.2.840.10008.3.1.2.3.3"
ENDED = 0xA506


@dataclass(frozen=True, slots=True)
class Message:
    """One N-CREATE or N-SET as it arrived, accepted or not."""

    operation: str
    sop_instance_uid: str
    data_set: bytes
    status: int


@dataclass(slots=True)
class UpstreamRis:
    """Keeps steps as the standard says: a second N-CREATE is 0111, an ended step takes no N-SET."""

    port: int = 0
    syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    statuses: list[int] = field(default_factory=list)
    """Answers to the next messages; after that as the standard says."""
    messages: list[Message] = field(default_factory=list)
    _ended: dict[str, bool] = field(default_factory=dict)
    _server: ThreadedAssociationServer | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> UpstreamRis:
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.go_deaf()

    def listen(self) -> None:
        ae = AE(AE_TITLE)
        ae.add_supported_context(MPPS, list(self.syntaxes))
        server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[
                ALWAYS_CLOSE,
                (evt.EVT_N_CREATE, self._create),
                (evt.EVT_N_SET, self._set),
            ],
        )
        assert server is not None
        self._server = server
        self.port = int(server.server_address[1])

    def go_deaf(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    @property
    def taken(self) -> list[tuple[str, str]]:
        """Operation and instance of what was accepted, in order."""
        return [
            (item.operation, item.sop_instance_uid) for item in self.messages if not item.status
        ]

    def wait_for(self, count: int, deadline_s: float = 30.0) -> list[Message]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.messages) >= count, deadline_s)
            return list(self.messages)

    def _create(self, event: evt.Event) -> tuple[Dataset, None]:
        request = cast("Any", event.request)
        uid = str(request.AffectedSOPInstanceUID)
        status = 0x0111 if uid in self._ended else 0x0000
        if self.statuses:
            status = self.statuses.pop(0)
        if not status:
            self._ended[uid] = False
        self._keep("N-CREATE", uid, request.AttributeList.getvalue(), status)
        return _answer(status), None

    def _set(self, event: evt.Event) -> tuple[Dataset, None]:
        request = cast("Any", event.request)
        uid = str(request.RequestedSOPInstanceUID)
        status = 0x0000 if uid in self._ended else 0x0112
        if self._ended.get(uid):
            status = 0x0110
        if self.statuses:
            status = self.statuses.pop(0)
        if not status:
            state = event.modification_list.get("PerformedProcedureStepStatus", "IN PROGRESS")
            self._ended[uid] = state != "IN PROGRESS"
        self._keep("N-SET", uid, request.ModificationList.getvalue(), status)
        return _answer(status), None

    def _keep(self, operation: str, uid: str, data_set: bytes, status: int) -> None:
        with self._changed:
            self.messages.append(Message(operation, uid, data_set, status))
            self._changed.notify_all()


def _answer(status: int) -> Dataset:
    answer = Dataset()
    answer.Status = status
    if status == 0x0110:
        answer.ErrorID = ENDED
    return answer
