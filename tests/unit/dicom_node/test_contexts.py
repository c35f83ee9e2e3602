from __future__ import annotations

from pydicom import uid
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import build_context, negotiate_as_acceptor

from dicom_node import contexts


def test_every_public_storage_class_is_supported_and_no_other() -> None:
    expected = {str(each.abstract_syntax) for each in AllStoragePresentationContexts}
    assert len(expected) == 170
    offered = [str(each.abstract_syntax) for each in contexts.supported_contexts()]
    assert offered[0] == "1.2.840.10008.1.1"
    assert set(offered[1:]) == expected
    assert len(offered) == len(set(offered)) == 171


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


def test_lossless_is_preferred_to_lossy_whatever_the_requestor_puts_first() -> None:
    proposal = build_context(uid.CTImageStorage, [uid.JPEGBaseline8Bit, uid.JPEG2000Lossless])
    proposal.context_id = 1
    (accepted,), _ = negotiate_as_acceptor([proposal], contexts.supported_contexts())
    assert accepted.transfer_syntax == [uid.JPEG2000Lossless]


def test_private_class_is_added_only_where_a_site_asks_for_it() -> None:
    private = "1.3.12.2.1107.5.9.1"
    offered = {str(each.abstract_syntax) for each in contexts.supported_contexts((private,))}
    assert private in offered
    assert private not in {str(each.abstract_syntax) for each in contexts.supported_contexts()}
