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

RETIRED_STORAGE_CLASSES: tuple[UID, ...] = (
    UID("1.2.840.10008.5.1.4.1.1.3"),  # Ultrasound Multi-frame Image Storage
    UID("1.2.840.10008.5.1.4.1.1.5"),  # Nuclear Medicine Image Storage
    UID("1.2.840.10008.5.1.4.1.1.6"),  # Ultrasound Image Storage
    UID("1.2.840.10008.5.1.4.1.1.8"),  # Standalone Overlay Storage
    UID("1.2.840.10008.5.1.4.1.1.9"),  # Standalone Curve Storage
    UID("1.2.840.10008.5.1.4.1.1.9.1"),  # Waveform Storage - Trial
    UID("1.2.840.10008.5.1.4.1.1.10"),  # Standalone Modality LUT Storage
    UID("1.2.840.10008.5.1.4.1.1.11"),  # Standalone VOI LUT Storage
    UID("1.2.840.10008.5.1.4.1.1.12.3"),  # X-Ray Angiographic Bi-Plane Image Storage
    UID("1.2.840.10008.5.1.4.1.1.77.1"),  # VL Image Storage - Trial
    UID("1.2.840.10008.5.1.4.1.1.77.2"),  # VL Multi-frame Image Storage - Trial
    UID("1.2.840.10008.5.1.4.1.1.88.1"),  # Text SR Storage - Trial
    UID("1.2.840.10008.5.1.4.1.1.88.2"),  # Audio SR Storage - Trial
    UID("1.2.840.10008.5.1.4.1.1.88.3"),  # Detail SR Storage - Trial
    UID("1.2.840.10008.5.1.4.1.1.88.4"),  # Comprehensive SR Storage - Trial
    UID("1.2.840.10008.5.1.4.1.1.129"),  # Standalone PET Curve Storage
    UID("1.2.840.10008.5.1.4.34.1"),  # RT Beams Delivery Instruction Storage - Trial
    UID("1.2.840.10008.5.1.1.27"),  # Stored Print Storage SOP Class
    UID("1.2.840.10008.5.1.1.29"),  # Hardcopy Grayscale Image Storage SOP Class
    UID("1.2.840.10008.5.1.1.30"),  # Hardcopy Color Image Storage SOP Class
)
"""No longer in PS3.4 B.5; scanners outlive the editions that they were built to."""

STORAGE_CLASSES: tuple[UID, ...] = (
    *(UID(str(context.abstract_syntax)) for context in AllStoragePresentationContexts),
    *RETIRED_STORAGE_CLASSES,
)
"""Every storage SOP class that the standard has or had (PS3.4 B.5)."""

VERIFICATION_CLASS: UID = Verification
STORAGE_COMMITMENT_CLASS = UID("1.2.840.10008.1.20.1")
PROCEDURE_STEP_CLASS = UID("1.2.840.10008.3.1.2.3.3")
"""Modality Performed Procedure Step."""

NORMALIZED_CLASSES: tuple[UID, ...] = (STORAGE_COMMITMENT_CLASS, PROCEDURE_STEP_CLASS)
"""Served by DIMSE-N, beside the storage classes."""


def supported_contexts(private_sop_classes: Sequence[str] = ()) -> list[PresentationContext]:
    """The presentation contexts that the node negotiates with.

    Args:
        private_sop_classes: SOP classes of vendors that this site wants stored too.

    Returns:
        Verification first, then the other services, then one context for each storage class.
    """
    classes = dict.fromkeys((*STORAGE_CLASSES, *(UID(each) for each in private_sop_classes)))
    services = (VERIFICATION_CLASS, *NORMALIZED_CLASSES)
    return [
        *(build_context(each, [*_NATIVE, uid.ExplicitVRBigEndian]) for each in services),
        *(build_context(each, list(TRANSFER_SYNTAXES)) for each in classes),
    ]
