"""From a C-STORE command and its data set to a durable instance and a status.

The order is the promise (PS3.4 B.2.3): whole file synced, name durable, row durable, Success. One
``StoreSession`` per association; it knows nothing of sockets or PDUs.
"""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass, field

import structlog

from dicom_node import errors
from dicom_node.admission import PeerRule
from dicom_node.coercion import check_coercions, plan_received
from dicom_node.file_meta import FileMeta, encode_file_meta
from dicom_node.headers import check_first_element, header_of, identity_of, scan_received
from dicom_node.inbox import ConflictNote, Inbox, RecordResult
from dicom_node.incoming import IncomingFile
from dicom_node.instance import StoredInstance
from dicom_node.spool import Spool
from dicom_node.status import StoreStatus
from dicom_node.uids import is_valid_uid

_log = structlog.get_logger()

_WASTE_BYTES = 64 * 1024
# Only a study that leaves the device between two looks asks for a second attempt.
_SETTLE_ATTEMPTS = 3

_STATUS_OF: dict[type[errors.DicomNodeError], StoreStatus] = {
    errors.NotAuthorisedError: StoreStatus.NOT_AUTHORISED,
    errors.SopClassNotNegotiatedError: StoreStatus.SOP_CLASS_NOT_SUPPORTED,
    errors.DataSetMismatchError: StoreStatus.DATA_SET_MISMATCH,
    errors.DataSetUnreadableError: StoreStatus.CANNOT_UNDERSTAND,
    errors.InstanceTooLargeError: StoreStatus.OUT_OF_RESOURCES,
    errors.SpoolFullError: StoreStatus.OUT_OF_RESOURCES,
    errors.QuotaReachedError: StoreStatus.OUT_OF_RESOURCES,
    errors.SpoolFailedError: StoreStatus.OUT_OF_RESOURCES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCommand:
    """What a C-STORE-RQ and its presentation context announce."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    context_class_uid: str
    """The abstract syntax of the presentation context, "" if it was not accepted."""
    transfer_syntax_uid: str
    study_instance_uid: str = field(default="", repr=False)
    """The study that the instance must belong to; "" where the door does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The peer of one association, as admitted."""

    ae_title: str = field(repr=False)
    address: str = field(repr=False)
    rule: PeerRule = field(repr=False)


class Reception:
    """The data set of one C-STORE while it arrives; never raises into the network layer.

    After a failure the rest of the data set is let through and dropped, so that the association
    lives on and the peer gets its status. Used by one thread at a time.
    """

    def __init__(self, command: StoreCommand) -> None:
        self.command = command
        self.file: IncomingFile | None = None
        self.failure: errors.DicomNodeError | None = None
        self._waste: memoryview | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Take a piece of the data set."""
        if self.file is None:
            return
        try:
            self.file.write(data)
        except errors.DicomNodeError as error:
            self.fail(error)

    def space(self) -> memoryview:
        """Room for the next bytes of the data set; after a failure, room that nobody reads."""
        if self.file is not None:
            try:
                return self.file.space()
            except errors.DicomNodeError as error:
                self.fail(error)
        if self._waste is None:
            self._waste = memoryview(bytearray(_WASTE_BYTES))
        return self._waste

    def advance(self, count: int) -> None:
        """Count what was written into ``space``."""
        if self.file is None:
            return
        try:
            self.file.advance(count)
        except errors.DicomNodeError as error:
            self.fail(error)

    def fail(self, error: errors.DicomNodeError) -> None:
        """Note why the instance cannot be taken, and drop what has arrived."""
        self.failure = error
        self.drop()

    def drop(self) -> None:
        """Remove the unfinished file, if any."""
        if self.file is not None:
            self.file.discard()
            self.file = None


class StoreSession:
    """All stores of one association."""

    def __init__(
        self,
        *,
        association_id: str,
        caller: Caller,
        spool: Spool,
        inbox: Inbox,
        max_instance_bytes: int,
    ) -> None:
        self.association_id = association_id
        self._caller = caller
        self._spool = spool
        self._inbox = inbox
        self._max_instance_bytes = max_instance_bytes
        self._coerced = check_coercions(caller.rule.coercions)
        self._is_opened = False
        self._is_closed = False
        self._pending: set[Reception] = set()
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._stored = 0

    def begin(self, command: StoreCommand) -> Reception:
        """Get ready for a data set; whatever is wrong is answered in ``finish``."""
        reception = Reception(command)
        try:
            reception.file = self._open_file(command)
        except errors.DicomNodeError as error:
            reception.failure = error
        with self._lock:
            if self._is_closed:
                reception.drop()
            self._pending.add(reception)
        return reception

    def _open_file(self, command: StoreCommand) -> IncomingFile:
        if not self._caller.rule.may_store:
            raise errors.NotAuthorisedError("this peer may not store; see the list of peers")
        if not (is_valid_uid(command.sop_class_uid) and is_valid_uid(command.sop_instance_uid)):
            raise errors.DataSetUnreadableError("the command names no valid UIDs")
        if command.sop_class_uid != command.context_class_uid:
            raise errors.SopClassNotNegotiatedError("the context is for another SOP class")
        quota = self._caller.rule.quota_bytes
        if quota is not None and self._inbox.held_bytes(self._caller.ae_title) >= quota:
            raise errors.QuotaReachedError("the peer's quota is used up; raise quota_bytes")
        meta = encode_file_meta(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=command.transfer_syntax_uid,
            source_ae_title=self._caller.ae_title,
        )
        return self._spool.begin(meta, max_bytes=self._max_instance_bytes)

    def finish(self, reception: Reception) -> StoreStatus:
        """Make a received instance durable and say what to answer."""
        try:
            return self._store(reception)
        except errors.DicomNodeError as error:
            status = _STATUS_OF.get(type(error), StoreStatus.OUT_OF_RESOURCES)
            _log.warning(
                "node.instance_refused",
                association_id=self.association_id,
                status=f"{status:04X}",
                error=type(error).__name__,
            )
            return status
        except Exception as error:  # noqa: BLE001  boundary: the peer gets a status in any case
            # The text of a foreign error may hold values, so only its type and place are logged.
            _log.error(
                "node.store_failed",
                association_id=self.association_id,
                error=type(error).__name__,
                place=[
                    f"{each.name}:{each.lineno}"
                    for each in traceback.extract_tb(error.__traceback__)
                ],
            )
            return StoreStatus.OUT_OF_RESOURCES
        finally:
            reception.drop()
            with self._lock:
                self._pending.discard(reception)

    def _store(self, reception: Reception) -> StoreStatus:
        if reception.failure is not None:
            raise reception.failure
        if reception.file is None:
            raise errors.DataSetUnreadableError("the command came without a data set")
        status = self._coerce(reception, reception.file)
        instance = self._publish(reception.command, reception.file)
        reception.file.release()
        reception.file = None
        self._open_once()
        result = settle(self._spool, self._inbox, instance)
        self._stored += 1
        _log.debug(
            "node.instance_stored",
            association_id=self.association_id,
            result=result.value,
            file_bytes=instance.file_bytes,
        )
        return status

    def _coerce(self, reception: Reception, received: IncomingFile) -> StoreStatus:
        """Put the settings' attributes in, where the peer has any; the file may be a new one."""
        if not self._coerced:
            return StoreStatus.SUCCESS
        plan = plan_received(
            received.read_at,
            received.file_bytes,
            _meta_of(reception.command, received),
            self._coerced,
        )
        if plan is None:
            return StoreStatus.SUCCESS
        changed = self._open_file(reception.command)
        try:
            plan.write_to(changed.write)
        except BaseException:
            changed.discard()
            raise
        reception.file = changed
        received.discard()
        return StoreStatus.COERCED

    def _publish(self, command: StoreCommand, file: IncomingFile) -> StoredInstance:
        """Check the received file against its command, and give it its durable name.

        What cannot be taken is refused before it costs a write.
        """
        check_first_element(file.read_at, file.data_set_offset)
        found = scan_received(file.read_at, file.file_bytes, _meta_of(command, file))
        header = header_of(found)
        if (header.sop_class_uid, header.sop_instance_uid) != (
            command.sop_class_uid,
            command.sop_instance_uid,
        ):
            raise errors.DataSetMismatchError("command and data set name different instances")
        if command.study_instance_uid not in ("", header.study_instance_uid):
            raise errors.DataSetMismatchError("the instance belongs to another study")
        return StoredInstance(
            header=header,
            identity=identity_of(found.scan),
            path=self._spool.keep(file),
            file_bytes=file.file_bytes,
            calling_ae_title=self._caller.ae_title,
            association_id=self.association_id,
        )

    def _open_once(self) -> None:
        with self._opening:
            if self._is_opened:
                return
            self._inbox.association_opened(
                self.association_id, self._caller.ae_title, self._caller.address
            )
            self._is_opened = True
        _log.info("node.association_opened", association_id=self.association_id)

    def close(self, *, released: bool) -> None:
        """End the session: unfinished files go, and the index hears of the end."""
        with self._lock:
            self._is_closed = True
            for reception in self._pending:
                reception.drop()
            self._pending.clear()
        if not self._is_opened:
            return
        self._inbox.association_closed(self.association_id, released=released)
        _log.info(
            "node.association_closed",
            association_id=self.association_id,
            released=released,
            instances=self._stored,
        )


def _meta_of(command: StoreCommand, file: IncomingFile) -> FileMeta:
    return FileMeta(
        sop_class_uid=command.sop_class_uid,
        sop_instance_uid=command.sop_instance_uid,
        transfer_syntax_uid=command.transfer_syntax_uid,
        source_ae_title="",
        data_set_offset=file.data_set_offset,
    )


def settle(spool: Spool, inbox: Inbox, instance: StoredInstance) -> RecordResult:
    """Give a published file its row, or its place beside the row that stands there already.

    Raises:
        Exception: Whatever the index raises; the file stays for the start-up scan.
        SpoolFailedError: The disk failed.
    """
    for _ in range(_SETTLE_ATTEMPTS):
        held = inbox.record(instance)
        if held is None:
            return RecordResult.STORED
        try:
            is_same = spool.have_same_data_set(held.path, instance.path)
        except FileNotFoundError:
            # Lost, or gone with its study a moment ago: then the next look finds no row.
            if inbox.replace_file(instance, held):
                return RecordResult.STORED
            continue
        if is_same:
            spool.remove(instance.path)
            return RecordResult.DUPLICATE
        note = inbox.record_conflict(instance, held, spool.data_set_digest(instance.path))
        if note is ConflictNote.ROW_GONE:
            continue
        if note is ConflictNote.NOTED:
            spool.quarantine(instance.path)
            _log.error("node.instance_quarantined", name=instance.path.rpartition("/")[2])
        else:
            spool.remove(instance.path)
        return RecordResult.CONFLICT
    raise errors.SpoolFailedError("files leave the spool while they are stored; see its folder")
