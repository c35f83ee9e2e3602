"""Who the phantom claims to be: invented patients, and headers in several scanners' manners.

The manufacturers are invented. What differs between the styles is what differs between real
scanners and trips receivers: signed or unsigned pixels, padding, where the rescale sits, the
order of the slices, names of kernels, how decimal strings are written.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from enum import Enum

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
    """Manner of the headers."""

    AURORA = "aurora"
    BOREAS = "boreas"
    CIRRUS = "cirrus"
    DELTA = "delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleRules:
    """What one invented scanner writes."""

    manufacturer: str
    model: str
    software: str
    kernels: dict[Kernel, str]
    image_type: tuple[str, ...]
    body_part: str
    scan_options: str
    protocol: str
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


STYLES = {
    Style.AURORA: StyleRules(
        manufacturer="AURORA PHANTOM WORKS",
        model="Aurora 64",
        software="aw_3.2",
        kernels={Kernel.SOFT: "SOFT", Kernel.STANDARD: "STANDARD", Kernel.BONE: "BONE"},
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        body_part="HEAD",
        scan_options="HELICAL MODE",
        protocol="1.1 ROUTINE HEAD",
        signed=True,
        rescale_intercept=-1024,
        padding=-2000,
        first_is_top=False,
        decimals=6,
        windows=((40, 80),),
        writes_image_count=True,
    ),
    Style.BOREAS: StyleRules(
        manufacturer="Boreas Phantoms",
        model="Boreas Definition",
        software="syn VB20A",
        kernels={Kernel.SOFT: "H30s", Kernel.STANDARD: "H40s", Kernel.BONE: "H70h"},
        image_type=("ORIGINAL", "PRIMARY", "AXIAL", "CT_SYN SPI"),
        body_part="HEAD",
        scan_options="",
        protocol="HeadSpi",
        signed=False,
        rescale_intercept=-1024,
        padding=None,
        first_is_top=True,
        decimals=5,
        windows=((35, 80), (700, 3200)),
        writes_image_count=True,
    ),
    Style.CIRRUS: StyleRules(
        manufacturer="Cirrus",
        model="Cirrus Ingenious CT",
        software="4.1",
        kernels={Kernel.SOFT: "UA", Kernel.STANDARD: "UB", Kernel.BONE: "D"},
        image_type=("ORIGINAL", "PRIMARY", "AXIAL", "HELIX"),
        body_part="BRAIN",
        scan_options="HELIX",
        protocol="PLAIN HEAD /Head",
        signed=False,
        rescale_intercept=-1024,
        padding=None,
        first_is_top=False,
        decimals=3,
        windows=((40, 80), (40, 80)),
        writes_image_count=True,
    ),
    Style.DELTA: StyleRules(
        manufacturer="DELTA PHANTOMS",
        model="Delta ONE",
        software="V8.1",
        kernels={Kernel.SOFT: "FC21", Kernel.STANDARD: "FC26", Kernel.BONE: "FC81"},
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        body_part="HEAD",
        scan_options="HELICAL_CT",
        protocol="Brain Helical",
        signed=True,
        rescale_intercept=0,
        padding=None,
        first_is_top=True,
        decimals=4,
        windows=((40, 90),),
        writes_image_count=True,
    ),
}


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
