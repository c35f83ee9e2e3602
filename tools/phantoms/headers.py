"""Who the phantom claims to be: invented patients, and headers in several scanners' manners.

What differs between the styles is what differs between real scanners and trips receivers: names
of manufacturers and kernels, image types, signed or unsigned pixels, padding, where the rescale
sits, the order of the slices, how decimal strings are written. There are no private attributes,
and patient, institution and station say that they are a phantom's.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

import numpy as np
from pydicom.uid import UID

from tools.phantoms.spec import Kernel

UID_NAMESPACE = uuid.UUID("6f1d3c52-7a0e-5b7e-9d55-4c1b6e0f2a71")
"""Namespace of this generator's name-based UUIDs; UIDs are 2.25.<UUID> (PS3.5 B.2)."""
DEFAULT_ACQUIRED = dt.datetime(2026, 1, 15, 9, 30)  # noqa: DTZ001 - DICOM DA and TM carry no zone


def derived_uid(*parts: object) -> UID:
    """A UID that depends on nothing but its parts."""
    text = "|".join(str(part) for part in parts)
    return UID(f"2.25.{uuid.uuid5(UID_NAMESPACE, text).int}")


class Style(str, Enum):
    """Manner of the headers: whose scanners write like this."""

    GE = "ge"
    SIEMENS = "siemens"
    PHILIPS = "philips"
    CANON = "canon"


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleRules:
    """What the scanners of one manufacturer write."""

    manufacturer: str
    model: str
    software: str
    kernels: Mapping[Kernel, str]
    image_type: tuple[str, ...]
    localizer_type: tuple[str, ...]
    body_part: str
    scan_options: str
    protocol: str
    series_description: str
    """With ``{mm}`` for the slices' thickness and ``{kernel}`` for the kernel."""
    localizer_description: str
    filter_type: str
    signed: bool
    rescale_intercept: int
    padding: int | None
    """Stored value outside the circle of reconstruction."""
    first_is_top: bool
    """Instance number 1 is the slice nearest to the vertex."""
    decimals: int
    windows: tuple[tuple[int, int], ...]
    """Centre and width."""
    writes_image_count: bool
    """Writes ImagesInAcquisition (0020,1002)."""

    def describe_series(self, kernel: Kernel, thickness_mm: float) -> str:
        """SeriesDescription of a stack."""
        return self.series_description.format(
            mm=f"{round(thickness_mm, 2):g}", kernel=self.kernels[kernel]
        )


STYLES: Mapping[Style, StyleRules] = MappingProxyType(
    {
        Style.GE: StyleRules(
            manufacturer="GE MEDICAL SYSTEMS",
            model="Revolution CT",
            software="revo_ct_21b.33",
            kernels={Kernel.SOFT: "SOFT", Kernel.STANDARD: "STANDARD", Kernel.BONE: "BONEPLUS"},
            image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
            localizer_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
            body_part="HEAD",
            scan_options="HELICAL MODE",
            protocol="1.1 ROUTINE HEAD",
            series_description="{mm}mm {kernel} HEAD",
            localizer_description="SCOUT",
            filter_type="HEAD FILTER",
            signed=True,
            rescale_intercept=-1024,
            padding=-2000,
            first_is_top=False,
            decimals=6,
            windows=((40, 80),),
            writes_image_count=True,
        ),
        Style.SIEMENS: StyleRules(
            manufacturer="SIEMENS",
            model="SOMATOM Definition Flash",
            software="syngo CT 2012B",
            kernels={Kernel.SOFT: "H30s", Kernel.STANDARD: "H40s", Kernel.BONE: "H70h"},
            image_type=("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"),
            localizer_type=("ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"),
            body_part="HEAD",
            scan_options="",
            protocol="HeadSpi",
            series_description="Head  {mm}  {kernel}",
            localizer_description="Topogram  0.6  T20f",
            filter_type="0",
            signed=False,
            rescale_intercept=-1024,
            padding=None,
            first_is_top=True,
            decimals=5,
            windows=((35, 80), (700, 3200)),
            writes_image_count=True,
        ),
        Style.PHILIPS: StyleRules(
            manufacturer="Philips",
            model="iCT 256",
            software="4.1",
            kernels={Kernel.SOFT: "UA", Kernel.STANDARD: "UB", Kernel.BONE: "D"},
            image_type=("ORIGINAL", "PRIMARY", "AXIAL", "HELIX"),
            localizer_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
            body_part="BRAIN",
            scan_options="HELIX",
            protocol="PLAIN HEAD /Head",
            series_description="HEAD W/O {mm}mm, iDose (3)",
            localizer_description="SURVIEW",
            filter_type="",
            signed=False,
            rescale_intercept=-1024,
            padding=None,
            first_is_top=False,
            decimals=3,
            windows=((40, 80), (40, 80)),
            writes_image_count=True,
        ),
        Style.CANON: StyleRules(
            manufacturer="CANON_MEC",
            model="Aquilion ONE",
            software="V8.4SP0008",
            kernels={Kernel.SOFT: "FC21", Kernel.STANDARD: "FC26", Kernel.BONE: "FC81"},
            image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
            localizer_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
            body_part="HEAD",
            scan_options="HELICAL_CT",
            protocol="Brain Helical",
            series_description="Brain {mm} {kernel}",
            localizer_description="Scanogram",
            filter_type="LARGE",
            signed=True,
            rescale_intercept=0,
            padding=None,
            first_is_top=True,
            decimals=4,
            windows=((40, 90),),
            writes_image_count=True,
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomIdentity:
    """An invented patient and order."""

    patient_name: str
    patient_id: str
    birth_date: dt.date
    sex: str
    accession_number: str


def identity_for(seed: int, *, acquired: dt.datetime = DEFAULT_ACQUIRED) -> PhantomIdentity:
    """The patient that belongs to a seed: an adult whose name says phantom."""
    rng = np.random.default_rng([seed, 9])
    age = int(rng.integers(20, 90))
    birth = dt.date(acquired.year - age, int(rng.integers(1, 13)), int(rng.integers(1, 29)))
    return PhantomIdentity(
        patient_name=f"PHANTOM^HEAD{seed}",
        patient_id=f"PHANTOM-{seed:06d}",
        birth_date=birth,
        sex=str(rng.choice(("F", "M"))),
        accession_number=f"PH{seed:08d}"[:16],
    )


def style_for(seed: int) -> Style:
    """The scanner that belongs to a seed."""
    return tuple(Style)[int(np.random.default_rng([seed, 8]).integers(len(Style)))]


def decimal_string(value: float, decimals: int = 6) -> str:
    """A DS of at most 16 characters (PS3.5 6.2)."""
    text = f"{value:.{decimals}f}"
    return text if len(text) <= 16 else f"{value:.9g}"
