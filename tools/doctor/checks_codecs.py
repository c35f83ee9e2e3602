"""Does each codec that the pipeline would take decode a frame on this machine?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from edge_runtime.pipeline.decode import PLUGINS
from tools.doctor import codec_frames
from tools.doctor.codec_frames import SIDE, expected_pixels
from tools.doctor.findings import Check, Context, Finding, failed, fine, warning

_GDCM = {"gdcm": "python-gdcm"}
_JPEG_LS = {**_GDCM, "pyjpegls": "pyjpegls"}
_JPEG_2000 = {**_GDCM, "pylibjpeg": "pylibjpeg pylibjpeg-openjpeg"}
_RLE = {"pylibjpeg": "pylibjpeg pylibjpeg-rle", "pydicom": "pydicom"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecFamily:
    """Transfer syntaxes that one codec decodes."""

    key: str
    name: str
    syntax: UID
    frame: bytes
    packages: Mapping[str, str]
    """What to install for each of pydicom's plugins, as ``pip install`` takes it."""
    bits: int = 16
    tolerance: int = 0
    """Largest difference of a stored value; only lossy codecs may differ."""


FAMILIES = (
    CodecFamily(
        key="jpeg_lossless",
        name="JPEG lossless",
        syntax=JPEGLosslessSV1,
        frame=codec_frames.JPEG_LOSSLESS,
        packages=_GDCM,
    ),
    CodecFamily(
        key="jpeg_ls",
        name="JPEG-LS",
        syntax=JPEGLSLossless,
        frame=codec_frames.JPEG_LS,
        packages=_JPEG_LS,
    ),
    CodecFamily(
        key="jpeg_2000",
        name="JPEG 2000",
        syntax=JPEG2000Lossless,
        frame=codec_frames.JPEG_2000,
        packages=_JPEG_2000,
    ),
    CodecFamily(
        key="htj2k",
        name="HTJ2K",
        syntax=HTJ2KLossless,
        frame=codec_frames.HTJ2K,
        packages=_JPEG_2000,
    ),
    CodecFamily(key="rle", name="RLE", syntax=RLELossless, frame=codec_frames.RLE, packages=_RLE),
    CodecFamily(
        key="jpeg_baseline",
        name="JPEG baseline",
        syntax=JPEGBaseline8Bit,
        frame=codec_frames.JPEG,
        packages=_GDCM,
        bits=8,
        tolerance=3,
    ),
)


def codec_checks() -> tuple[Check, ...]:
    """One check for each family."""
    return tuple(
        Check(f"codec.{family.key}", _ignoring_context(partial(check_codec, family)))
        for family in FAMILIES
    )


def _ignoring_context(judge: Callable[[], Finding]) -> Callable[[Context], Finding]:
    return lambda _context: judge()


def check_codec(family: CodecFamily) -> Finding:
    """Decode the family's frame with the plugin that the pipeline would take."""
    available = get_decoder(family.syntax).available_plugins
    wanted = PLUGINS[family.syntax]
    plugin = next((name for name in wanted if name in available), None)
    if plugin is None:
        return failed(
            f"no codec for {family.name}: studies that are compressed so are stored, but not "
            "analysed",
            f"`pip install {family.packages[wanted[0]]}`",
        )
    package = family.packages[plugin]
    try:
        decoded = _decode(family, plugin)
    except Exception as error:  # noqa: BLE001 - foreign decoders raise anything at all
        return failed(
            f"the codec for {family.name} ({package}) fails with {type(error).__name__}",
            f"`pip install --force-reinstall {package}`",
        )
    if not _is_right(family, decoded):
        return failed(
            f"the codec for {family.name} ({package}) decodes a known frame wrongly",
            f"`pip install --force-reinstall {package}`, in a version that edge-triage allows",
        )
    if plugin != wanted[0]:
        preferred = family.packages[wanted[0]]
        return warning(
            f"{family.name} is decoded by {package}, the second choice; {preferred} is missing",
            f"`pip install {preferred}`",
        )
    return fine(f"{package} decodes {family.name}")


def _decode(family: CodecFamily, plugin: str) -> NDArray[np.integer[Any]]:
    # Any, because pydicom types each option as all of them.
    options: dict[str, Any] = {
        "rows": SIDE,
        "columns": SIDE,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": family.bits,
        "bits_stored": family.bits,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }
    decoded, _ = get_decoder(family.syntax).as_array(
        encapsulate([family.frame]), index=0, raw=True, decoding_plugin=plugin, **options
    )
    return decoded


def _is_right(family: CodecFamily, decoded: NDArray[np.integer[Any]]) -> bool:
    if decoded.shape != (SIDE, SIDE):
        return False
    difference = np.abs(decoded.astype(np.int64) - expected_pixels(family.bits))
    return int(difference.max()) <= family.tolerance
