"""What the node accepts: the table of storage classes and transfer syntaxes.

The acceptor's order wins (PS3.8 9.3.3.3 leaves the choice to the acceptor): of what a scanner
proposes for a class, the first syntax of ``TRANSFER_SYNTAXES`` is taken. Native syntaxes stand
first, because they cost no decoding; then lossless compression, then what only some writers still
use, then lossy: whether a lossy image may be analysed is the model's decision, not the node's.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import uid
from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

_NATIVE = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)

_LOSSLESS = (
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
)

_RARE = (
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,  # retired, still sent
    UID("1.2.840.10008.1.2.1.98"),  # Encapsulated Uncompressed Explicit VR Little Endian
    UID("1.2.840.10008.1.2.8.1"),  # Deflated Image Frame Compression
    UID("1.2.840.10008.1.2.4.110"),  # JPEG XL Lossless
)

_LOSSY = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
    uid.JPEG2000MCLossless,
    uid.JPEG2000MC,
    UID("1.2.840.10008.1.2.4.111"),  # JPEG XL JPEG Recompression
    UID("1.2.840.10008.1.2.4.112"),  # JPEG XL
)

_VIDEO = (
    uid.MPEG2MPML,
    uid.MPEG2MPMLF,
    uid.MPEG2MPHL,
    uid.MPEG2MPHLF,
    uid.MPEG4HP41,
    uid.MPEG4HP41F,
    uid.MPEG4HP41BD,
    uid.MPEG4HP41BDF,
    uid.MPEG4HP422D,
    uid.MPEG4HP422DF,
    uid.MPEG4HP423D,
    uid.MPEG4HP423DF,
    uid.MPEG4HP42STEREO,
    uid.MPEG4HP42STEREOF,
    uid.HEVCMP51,
    uid.HEVCM10P51,
)

TRANSFER_SYNTAXES: tuple[UID, ...] = (*_NATIVE, *_LOSSLESS, *_RARE, *_LOSSY, *_VIDEO)
"""In our order of preference."""

NATIVE_SYNTAXES: frozenset[UID] = frozenset(_NATIVE)
"""Syntaxes between which a data set can be re-encoded without touching pixels."""

STORAGE_CLASSES: tuple[UID, ...] = tuple(
    UID(str(context.abstract_syntax)) for context in AllStoragePresentationContexts
)
"""Every public storage SOP class, retired ones too (PS3.4 B.5)."""

VERIFICATION_CLASS: UID = Verification


def supported_contexts(private_sop_classes: Sequence[str] = ()) -> list[PresentationContext]:
    """The presentation contexts that the node negotiates with.

    Args:
        private_sop_classes: SOP classes of vendors that this site wants stored too.

    Returns:
        Verification first, then one context for each storage class.
    """
    classes = dict.fromkeys((*STORAGE_CLASSES, *(UID(each) for each in private_sop_classes)))
    return [
        build_context(VERIFICATION_CLASS, [*_NATIVE, uid.ExplicitVRBigEndian]),
        *(build_context(each, list(TRANSFER_SYNTAXES)) for each in classes),
    ]
