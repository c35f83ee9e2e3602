"""Attributes that the node sets in what a peer sends (PS3.4 B.2.3; answered with B000).

* Only the named elements of the top level change, and the group lengths that count them. Every
  other byte of the data set stays as it came.
* The same instance under the same settings gives the same bytes, so that an instance which comes
  again is recognised. Hence a deflated data set is written in stored blocks: what a compressor
  makes of it differs from version to version.
* Nothing is decoded, and memory does not grow with the size of the instance.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pydicom import config, uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.valuerep import validate_value

from dicom_node.admission import Coercion
from dicom_node.errors import CoercionNotAllowedError, DataSetUnreadableError
from dicom_node.file_meta import FileMeta
from dicom_node.scanner import ElementPlace, Encoding, ReadAt, walk_top_level

SETTABLE: tuple[str, ...] = (
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "GantryID",
    "IssuerOfPatientID",
    "CurrentPatientLocation",
    "PatientInstitutionResidence",
    "ReferringPhysicianName",
    "ReferringPhysicianAddress",
    "ReferringPhysicianTelephoneNumbers",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "RequestingPhysician",
    "RequestingService",
)
"""One value can be right for all instances of a peer: where they come from and who asked."""

EMPTIABLE: tuple[str, ...] = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "CountryOfResidence",
    "RegionOfResidence",
    "MilitaryRank",
    "BranchOfService",
    "EthnicGroup",
    "PatientReligiousPreference",
    "ResponsiblePerson",
    "ResponsibleOrganization",
    "PatientComments",
    "PatientAge",
    "Occupation",
    "AdditionalPatientHistory",
    "AdmittingDiagnosesDescription",
    "AdmissionID",
    "ServiceEpisodeID",
    "ServiceEpisodeDescription",
    "VisitComments",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "PerformingPhysicianName",
    "OperatorsName",
)
"""These differ from patient to patient, or decide whether a model may look at a study: one value
for all would make one patient of many, so they can only be emptied."""

# Instances of one peer may come in several character sets; ISO 646 is part of each. Not in it
# everywhere: the tilde (ISO_IR 13 has an overline there). The backslash separates values.
_WRITABLE = re.compile(r"[ -\[\]-}]*")
_LENGTH_TO_END = 0x00080001  # retired; it counts the bytes from its own end to the data set's
_LONG = struct.Struct("<I"), struct.Struct(">I")
_PIECE_BYTES = 1 << 20
# As for reading headers: coerced attributes stand far below this; a bomb stops here.
_MAX_INFLATED_HEAD_BYTES = 16 << 20
_MAX_BLOCK_BYTES = 0xFFFF
_LAST_BLOCK = b"\x01\x00\x00\xff\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoercedAttribute:
    """One attribute and the value that it gets."""

    tag: int
    vr: bytes
    value: bytes = field(repr=False)
    """Without padding; b"" empties the attribute where it is present."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """Some bytes of a data set are replaced by others."""

    offset: int
    """From the start of the data set."""
    removed: int
    """How many bytes go."""
    inserted: bytes = field(repr=False)


def check_coercions(coercions: Sequence[Coercion]) -> tuple[CoercedAttribute, ...]:
    """Turn settings into what is written, in the order of the tags.

    Raises:
        CoercionNotAllowedError: An attribute that must stay, is named twice, or whose value cannot
            be written.
    """
    keywords = [each.keyword for each in coercions]
    for keyword in keywords:
        if keywords.count(keyword) > 1:
            raise CoercionNotAllowedError(f"{keyword} is coerced twice; remove one of the two")
    return tuple(sorted(map(_checked, coercions), key=lambda each: each.tag))


def _checked(coercion: Coercion) -> CoercedAttribute:
    keyword, value = coercion.keyword, coercion.value
    if keyword in EMPTIABLE and value:
        raise CoercionNotAllowedError(
            f"{keyword} differs between patients, so it can only be emptied: remove its value"
        )
    tag = tag_for_keyword(keyword)
    if tag is None or keyword not in SETTABLE + EMPTIABLE:
        raise CoercionNotAllowedError(
            f"{keyword} cannot be coerced; can be set: {', '.join(SETTABLE)}; "
            f"can be emptied: {', '.join(EMPTIABLE)}"
        )
    vr = dictionary_VR(tag)
    if _WRITABLE.fullmatch(value) is None or value != value.strip():
        raise CoercionNotAllowedError(
            f"the value for {keyword} must be ASCII without backslash, tilde, control characters "
            "and outer spaces, so that every character set of a scanner has it"
        )
    try:
        validate_value(vr, value, config.RAISE)
    except ValueError:
        raise CoercionNotAllowedError(
            f"the value for {keyword} is no valid {vr} (PS3.5 6.2); shorten it"
        ) from None
    return CoercedAttribute(tag=int(tag), vr=vr.encode("ascii"), value=value.encode("ascii"))


# ---------------------------------------------------------------- the plan


@dataclass(slots=True, kw_only=True)
class _Planner:
    """Where each attribute stands or would stand, and what that means."""

    read_at: ReadAt
    size: int
    attributes: Sequence[CoercedAttribute]
    found: dict[int, ElementPlace] = field(default_factory=dict)
    follows: dict[int, int] = field(default_factory=dict)
    """Tag to the offset of the first element that must stand behind it."""
    counters: dict[int, ElementPlace] = field(default_factory=dict)
    """Group lengths, and the length to end."""

    def note(self, place: ElementPlace) -> None:
        for attribute in self.attributes:
            if place.tag == attribute.tag:
                if place.tag in self.found:
                    raise DataSetUnreadableError("an attribute to coerce stands there twice")
                self.found[place.tag] = place
            elif place.tag > attribute.tag:
                self.follows.setdefault(attribute.tag, place.offset)
            elif place.tag in {attribute.tag & 0xFFFF0000, _LENGTH_TO_END}:
                self.counters[place.tag] = place

    def splices(self, encoding: Encoding, *, complete: bool) -> tuple[Splice, ...]:
        if complete:
            for attribute in self.attributes:
                self.follows.setdefault(attribute.tag, self.size)
        planned = [
            (attribute.tag, splice)
            for attribute in self.attributes
            if (splice := self._splice_of(attribute, encoding)) is not None
        ]
        planned += self._counter_splices(planned, encoding)
        planned.sort(key=lambda each: (each[1].offset, each[0]))
        return tuple(splice for _, splice in planned)

    def _splice_of(self, attribute: CoercedAttribute, encoding: Encoding) -> Splice | None:
        place = self.found.get(attribute.tag)
        if place is None:
            return self._insertion_of(attribute, encoding)
        if place.length is None or place.value_at + place.length > self.size:
            raise DataSetUnreadableError("an attribute to coerce is no whole text")
        # Two more than ours: enough to tell a longer value from padding.
        value = self.read_at(place.value_at, min(place.length, len(attribute.value) + 2))
        if place.length == len(value) and value.rstrip(b" \0") == attribute.value:
            return None
        return Splice(
            offset=place.offset,
            removed=place.value_at + place.length - place.offset,
            inserted=_element(attribute, encoding),
        )

    def _insertion_of(self, attribute: CoercedAttribute, encoding: Encoding) -> Splice | None:
        if not attribute.value:
            return None
        offset = self.follows.get(attribute.tag)
        if offset is None:
            raise DataSetUnreadableError("the data set breaks off before an attribute to coerce")
        return Splice(offset=offset, removed=0, inserted=_element(attribute, encoding))

    def _counter_splices(
        self, planned: Sequence[tuple[int, Splice]], encoding: Encoding
    ) -> list[tuple[int, Splice]]:
        """Group lengths (retired, PS3.5 7.2) that count what has changed."""
        grown = {tag: len(splice.inserted) - splice.removed for tag, splice in planned}
        number = _LONG[0] if encoding.little_endian else _LONG[1]
        changes = []
        for tag, place in self.counters.items():
            counts_all = tag == _LENGTH_TO_END
            delta = sum(by for each, by in grown.items() if counts_all or each >> 16 == tag >> 16)
            raw = self.read_at(place.value_at, number.size)
            if delta and place.length == len(raw) == number.size:
                value = (number.unpack(raw)[0] + delta) % (1 << 32)
                changed = Splice(
                    offset=place.value_at, removed=number.size, inserted=number.pack(value)
                )
                changes.append((tag, changed))
        return changes


def _element(attribute: CoercedAttribute, encoding: Encoding) -> bytes:
    """The whole element (PS3.5 7.1.2, 7.1.3); all VRs of the tables have 16-bit lengths."""
    order = "<" if encoding.little_endian else ">"
    value = attribute.value + b" " * (len(attribute.value) % 2)
    tag = attribute.tag >> 16, attribute.tag & 0xFFFF
    if encoding.implicit_vr:
        return struct.pack(f"{order}HHI", *tag, len(value)) + value
    return struct.pack(f"{order}HH2sH", *tag, attribute.vr, len(value)) + value


def plan_splices(
    read_at: ReadAt, size: int, encoding: Encoding, attributes: Sequence[CoercedAttribute]
) -> tuple[Splice, ...]:
    """Say which bytes of a data set have to change.

    Args:
        read_at: Access to the data set, offset 0 being its first element.
        size: Length of the data set in bytes.
        encoding: As its transfer syntax says.
        attributes: What ``check_coercions`` returned.

    Returns:
        In the order of their offsets; none if every attribute is there as wanted, or is to be
        emptied and absent.

    Raises:
        DataSetUnreadableError: The data set is broken before the place of an attribute, or has one
            twice.
    """
    planner = _Planner(read_at=read_at, size=size, attributes=attributes)
    found, complete = walk_top_level(read_at, size, encoding, planner.note)
    return planner.splices(found, complete=complete)


def apply_splices(pieces: Iterable[bytes], splices: Sequence[Splice]) -> Iterator[bytes]:
    """The changed data set, piece by piece.

    Args:
        pieces: The data set in pieces of any size.
        splices: What ``plan_splices`` returned.
    """
    waiting = list(reversed(splices))
    begin = done = 0
    for piece in pieces:
        end = begin + len(piece)
        while waiting and waiting[-1].offset < end:
            splice = waiting.pop()
            yield piece[max(done - begin, 0) : splice.offset - begin]
            yield splice.inserted
            done = splice.offset + splice.removed
        yield piece[max(done - begin, 0) :]
        begin = end
        done = max(done, end)
    yield from (splice.inserted for splice in reversed(waiting))


# ---------------------------------------------------------------- received files


@dataclass(frozen=True, slots=True, kw_only=True)
class CoercionPlan:
    """What has to change in one received file."""

    read_at: ReadAt = field(repr=False)
    data_set_offset: int
    is_deflated: bool
    splices: tuple[Splice, ...]

    def write_to(self, write: Callable[[bytes], object]) -> None:
        """Pass the changed data set to ``write``, in pieces of at most a mebibyte.

        Raises:
            DataSetUnreadableError: The data set is not deflated as announced.
        """
        pieces = _pieces(self.read_at, self.data_set_offset)
        if self.is_deflated:
            pieces = _stored_blocks(apply_splices(_inflated(pieces), self.splices))
        else:
            pieces = apply_splices(pieces, self.splices)
        for piece in filter(None, pieces):
            write(piece)


def plan_received(
    read_at: ReadAt, file_bytes: int, meta: FileMeta, attributes: Sequence[CoercedAttribute]
) -> CoercionPlan | None:
    """Look at a whole file that may still be in memory.

    Args:
        read_at: Access to the bytes of the file, offset 0 being its preamble; the plan uses it too.
        file_bytes: Length of the file.
        meta: Its file meta information.
        attributes: What ``check_coercions`` returned.

    Returns:
        None if nothing has to change: the instance is stored as it came, with Success.

    Raises:
        DataSetUnreadableError: As for ``plan_splices``, or not deflated as announced.
    """
    start, syntax = meta.data_set_offset, meta.transfer_syntax_uid
    is_deflated = syntax == uid.DeflatedExplicitVRLittleEndian
    encoding = Encoding(
        implicit_vr=syntax == uid.ImplicitVRLittleEndian,
        little_endian=syntax != uid.ExplicitVRBigEndian,
    )
    if is_deflated:
        head = _inflated_head(_pieces(read_at, start))
        # One byte that cannot be read stands for all that was not inflated.
        size = len(head) + (len(head) > _MAX_INFLATED_HEAD_BYTES)
        splices = plan_splices(
            lambda offset, length: head[offset : offset + length], size, encoding, attributes
        )
    else:
        splices = plan_splices(
            lambda offset, length: read_at(start + offset, length),
            file_bytes - start,
            encoding,
            attributes,
        )
    if not splices:
        return None
    return CoercionPlan(
        read_at=read_at, data_set_offset=start, is_deflated=is_deflated, splices=splices
    )


def _pieces(read_at: ReadAt, position: int) -> Iterator[bytes]:
    while piece := read_at(position, _PIECE_BYTES):
        position += len(piece)
        yield piece


def _inflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a deflated data set (PS3.5 A.5)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for deflated in pieces:
            waiting = deflated
            while waiting and not inflater.eof:
                yield inflater.decompress(waiting, _PIECE_BYTES)
                waiting = inflater.unconsumed_tail
    except zlib.error as error:
        raise DataSetUnreadableError("the data set is not deflated as announced") from error
    if not inflater.eof:
        raise DataSetUnreadableError("the deflated data set breaks off")


def _inflated_head(pieces: Iterable[bytes]) -> bytes:
    head = bytearray()
    for piece in _inflated(pieces):
        head += piece
        if len(head) > _MAX_INFLATED_HEAD_BYTES:
            break
    return bytes(head)


def _stored_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A deflated data set that is not compressed (RFC 1951 3.2.4), padded to even length."""
    total = len(_LAST_BLOCK)
    for piece in pieces:
        cuts = range(0, len(piece) + _MAX_BLOCK_BYTES, _MAX_BLOCK_BYTES)
        for begin, end in pairwise(cuts):
            block = piece[begin:end]
            head = struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF)
            total += len(head) + len(block)
            yield head + block
    yield _LAST_BLOCK + b"\0" * (total % 2)
