"""Codes that are offered for what a label names, and SOP classes for a modality.

They are defaults of questions: the maker sees them, and answers for them. Where PS3.16 has a code
for the thing, it is that one, in its words; else SNOMED CT's own, in the words of its name. A code
says no more than its label does: a nodule need not be a solitary one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
)

from tools.models.recipes import Kind

SOP_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "CR": ComputedRadiographyImageStorage,
        "CT": CTImageStorage,
        "DX": DigitalXRayImageStorageForPresentation,
        "MR": MRImageStorage,
    }
)
"""Of each modality that can be asked for; images For Processing are none of them."""

CODES: Mapping[str, str] = MappingProxyType(
    {
        "atelectasis": "46621007 SCT Atelectasis",
        "cardiomegaly": "8186001 SCT Cardiomegaly",
        "consolidation": "95436008 SCT Lung consolidation",
        "edema": "19242006 SCT Pulmonary edema",
        "effusion": "60046008 SCT Pleural effusion",
        "emphysema": "87433001 SCT Pulmonary emphysema",
        "fibrosis": "51615001 SCT Fibrosis of lung",
        "fracture": "125605004 SCT Fracture of bone",
        "hernia": "84089009 SCT Hiatal hernia",
        "ich": "1386000 SCT Intracranial hemorrhage",
        "intracranial_hemorrhage": "1386000 SCT Intracranial hemorrhage",
        "mass": "4147007 SCT Mass",
        "nodule": "27925004 SCT Nodule",
        "pe": "59282003 SCT Pulmonary embolism",
        "pleural_effusion": "60046008 SCT Pleural effusion",
        "pneumonia": "233604007 SCT Pneumonia",
        "pneumothorax": "36118008 SCT Pneumothorax",
        "pulmonary_embolism": "59282003 SCT Pulmonary embolism",
    }
)
"""By a label's name."""

PROCEDURES: Mapping[str, str] = MappingProxyType(
    {
        "CR": "168537006 SCT Plain radiography",
        "CT": "77477000 SCT Computed tomography",
        "DX": "168537006 SCT Plain radiography",
        "MR": "113091000 SCT Magnetic resonance imaging",
    }
)
"""Of each modality: what its images come from, until the maker names a finer procedure."""

MODALITIES: Mapping[Kind, str] = MappingProxyType(
    {Kind.RADIOGRAPH: "DX, CR", Kind.SLICES: "CT", Kind.SLABS: "CT", Kind.VOLUME: "CT"}
)
BODY_PARTS: Mapping[Kind, str] = MappingProxyType(
    {Kind.RADIOGRAPH: "CHEST", Kind.SLICES: "", Kind.SLABS: "", Kind.VOLUME: ""}
)


def key_of(label: str, *, prefix: str = "finding") -> str:
    """A label as a key of ``package.toml``: 'Pleural Thickening' becomes 'pleural_thickening'.

    Args:
        label: what people call it.
        prefix: stands before a label that begins with no letter.
    """
    key = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    return key if key[:1].isalpha() and len(key) > 1 else f"{prefix}_{key}".rstrip("_")
