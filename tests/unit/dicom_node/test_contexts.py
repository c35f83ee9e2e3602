from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset, uid
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor

from dicom_node import contexts
from dicom_node.requestor import PeerAddress
from dicom_node.scp import StorageNode
from dicom_node.scu import SendOutcome, send_files
from dicom_node.status import StoreStatus

_PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"  # CSA Non-Image Storage
_PRIVATE_SYNTAX = "1.2.840.113619.5.2"  # implicit little endian with big endian pixels
_ABSTRACT_SYNTAX_NOT_SUPPORTED, _SYNTAXES_NOT_SUPPORTED = 3, 4  # PS3.8 9.3.3.2

_SUPPORTED = contexts.supported_contexts()

StartNode = Callable[..., StorageNode]
MakeFile = Callable[..., Path]


def _offered(private: Sequence[str] = ()) -> list[str]:
    return [str(each.abstract_syntax) for each in contexts.supported_contexts(private)]


@contextmanager
def _associated(node: StorageNode, proposals: list[PresentationContext]) -> Iterator[Association]:
    association = AE("SCANNER").associate("127.0.0.1", node.port, proposals, ae_title="NODE")
    try:
        yield association
    finally:
        association.release()


# ---------------------------------------------------------------- the table


def test_every_storage_class_is_offered_once() -> None:
    standard = {str(each.abstract_syntax) for each in AllStoragePresentationContexts}
    assert len(standard) == 170
    offered = _offered()
    assert offered[0] == "1.2.840.10008.1.1"
    assert standard <= set(offered)
    assert len(offered) == len(set(offered))


def test_every_storage_class_that_the_standard_once_had_is_offered() -> None:
    retired = {
        value
        for value, (name, kind, _, state, _) in UID_dictionary.items()
        if kind == "SOP Class" and state == "Retired" and "Storage" in name
    }
    no_objects = {"1.2.840.10008.1.20.2"}  # Storage Commitment Pull Model
    assert set(contexts.RETIRED_STORAGE_CLASSES) == retired - no_objects
    assert retired - no_objects <= set(_offered())


def test_transfer_syntaxes_begin_with_our_order_of_preference() -> None:
    assert contexts.TRANSFER_SYNTAXES[:10] == (
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.JPEGLosslessSV1,
        uid.JPEGLossless,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.RLELossless,
        uid.DeflatedExplicitVRLittleEndian,
    )
    assert len(set(contexts.TRANSFER_SYNTAXES)) == len(contexts.TRANSFER_SYNTAXES)


def test_every_transfer_syntax_of_the_standard_is_accepted() -> None:
    """But those that no C-STORE can carry: JPIP names a server, SMPTE ST 2110 is a live stream."""
    known = {
        value
        for value, (name, kind, _, state, _) in UID_dictionary.items()
        if kind == "Transfer Syntax"
        and state != "Retired"
        and not name.startswith(("JPIP", "SMPTE", "HTJ2K JPIP", "JPIP HTJ2K"))
    }
    no_data_sets = {"1.2.840.10008.1.20"}  # Papyrus 3, a file format of its own
    assert known - no_data_sets <= set(contexts.TRANSFER_SYNTAXES)


def test_private_class_is_added_only_where_a_site_asks_for_it() -> None:
    assert _PRIVATE_CLASS in _offered((_PRIVATE_CLASS,))
    assert _PRIVATE_CLASS not in _offered()


# ---------------------------------------------------------------- the choice


def _chosen(storage_class: UID, proposed: Sequence[UID]) -> UID:
    proposal = build_context(storage_class, list[str | UID](proposed))
    proposal.context_id = 1
    (answer,), _ = negotiate_as_acceptor([proposal], _SUPPORTED)
    return answer.transfer_syntax[0]


@pytest.mark.parametrize("storage_class", contexts.STORAGE_CLASSES)
def test_our_order_wins_for_each_class(storage_class: UID) -> None:
    ours = contexts.TRANSFER_SYNTAXES
    assert _chosen(storage_class, ours[::-1]) == ours[0]
    assert _chosen(storage_class, ours[:1:-1]) == uid.JPEGLosslessSV1
    odd = [uid.JPEG2000, uid.ExplicitVRBigEndian, uid.RLELossless, uid.JPEGBaseline8Bit]
    assert _chosen(storage_class, odd) == uid.RLELossless


def test_each_syntax_gives_way_to_our_next_when_it_is_not_proposed() -> None:
    left = list(reversed(contexts.TRANSFER_SYNTAXES))
    for expected in contexts.TRANSFER_SYNTAXES:
        assert _chosen(uid.CTImageStorage, left) == expected
        left.remove(expected)
    assert not left


def test_lossless_is_preferred_to_lossy_whatever_the_requestor_puts_first() -> None:
    proposed = [uid.JPEGBaseline8Bit, uid.JPEG2000Lossless]
    assert _chosen(uid.CTImageStorage, proposed) == uid.JPEG2000Lossless


# ---------------------------------------------------------------- over the network


@pytest.mark.parametrize("first", range(0, len(contexts.STORAGE_CLASSES), 128))
def test_a_requestor_gets_every_class_in_our_syntax(start_node: StartNode, first: int) -> None:
    """128 is all that one association can propose (PS3.8 9.3.2.2)."""
    classes = contexts.STORAGE_CLASSES[first : first + 128]
    odd_order = [uid.JPEGBaseline8Bit, uid.ExplicitVRBigEndian, uid.RLELossless]
    proposals = [build_context(each, [*odd_order, uid.ImplicitVRLittleEndian]) for each in classes]
    with _associated(start_node(), proposals) as association:
        accepted = association.accepted_contexts
    assert {str(each.abstract_syntax) for each in accepted} == set(classes)
    assert {each.transfer_syntax[0] for each in accepted} == {uid.ImplicitVRLittleEndian}


@pytest.mark.parametrize(
    ("storage_class", "syntax", "result"),
    [
        (_PRIVATE_CLASS, str(uid.ImplicitVRLittleEndian), _ABSTRACT_SYNTAX_NOT_SUPPORTED),
        (str(uid.CTImageStorage), _PRIVATE_SYNTAX, _SYNTAXES_NOT_SUPPORTED),
    ],
)
def test_private_class_or_syntax_is_rejected_in_its_context_alone(
    start_node: StartNode, storage_class: str, syntax: str, result: int
) -> None:
    proposals = [
        build_context(storage_class, [syntax]),
        build_context(uid.CTImageStorage, [uid.ExplicitVRLittleEndian]),
    ]
    with _associated(start_node(), proposals) as association:
        (rejected,) = association.rejected_contexts
        (accepted,) = association.accepted_contexts
    assert (rejected.abstract_syntax, rejected.result) == (storage_class, result)
    assert accepted.abstract_syntax == uid.CTImageStorage


def _of_class(storage_class: str) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(storage_class)

    return change


def test_private_class_by_setting_and_retired_classes_by_default_are_stored(
    start_node: StartNode,
    make_file: MakeFile,
    peer_of: Callable[[StorageNode], PeerAddress],
) -> None:
    classes = [_PRIVATE_CLASS, *contexts.RETIRED_STORAGE_CLASSES]
    node = start_node(private_sop_classes=(_PRIVATE_CLASS,))
    paths = [make_file(_of_class(each)) for each in classes]
    results = send_files(paths, peer_of(node), calling_ae_title="SCANNER")
    assert {(each.outcome, each.status) for each in results} == {
        (SendOutcome.STORED, StoreStatus.SUCCESS)
    }


def test_private_class_that_is_not_set_is_not_stored(
    start_node: StartNode, make_file: MakeFile, peer_of: Callable[[StorageNode], PeerAddress]
) -> None:
    (result,) = send_files(
        [make_file(_of_class(_PRIVATE_CLASS))],
        peer_of(start_node()),
        calling_ae_title="SCANNER",
    )
    assert result.outcome is SendOutcome.NO_CONTEXT
