"""Every code that is offered is one that somebody else knows too, under the same words.

PS3.16's codes are compared with pydicom's copy of them. For SNOMED CT's other concepts no copy may
lie here (its licence), so what was looked up is written down, and the check digit of every
identifier catches the slip of a finger.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from tools.models.answer_types import CODE
from tools.models.codes import CODES, PROCEDURES, SOP_CLASSES

OFFERED = {**CODES, **PROCEDURES}

# What PS3.16 has.
IN_DICOM: Mapping[str, Code] = {
    "edema": codes.cid3700.PulmonaryEdema,
    "effusion": codes.cid8134.PleuralEffusion,
    "ich": codes.SCT.IntracranialHemorrhage,
    "intracranial_hemorrhage": codes.SCT.IntracranialHemorrhage,
    "mass": codes.cid6104.Mass,
    "nodule": codes.cid6104.Nodule,
    "pe": codes.cid6104.PulmonaryEmbolism,
    "pleural_effusion": codes.cid8134.PleuralEffusion,
    "pneumothorax": codes.cid6102.Pneumothorax,
    "pulmonary_embolism": codes.cid6104.PulmonaryEmbolism,
    "CR": codes.cid10005.PlainRadiography,
    "CT": codes.cid10005.ComputedTomography,
    "DX": codes.cid10005.PlainRadiography,
}
# What it does not have, and where else it was found in the same sense.
ELSEWHERE = {
    "46621007": "CTCAE to SNOMED CT 2025-07 of the German Medical Informatics Initiative",
    # CID 12248 has 287272002 for it, which SNOMED CT calls an enlarged septal foramen.
    "8186001": "Human Phenotype Ontology, HP:0001640",
    "95436008": "OHDSI vocabularies, 4318404",
    "87433001": "SNOMED CT examples of HL7 implementation guides",
    "51615001": "German Corona Consensus Data Set of HL7 Germany",
    "125605004": "SNOMED International's own reports on fractures",
    "84089009": "maps to ICD-10-CM K44.9 and to ICD-11 DA23",
    "233604007": "SNOMED International's editorial guide, pneumonia and pneumonitis",
    "113091000": "value sets of diagnostic procedures of HL7 implementation guides",
}


@pytest.mark.parametrize("name", IN_DICOM)
def test_a_code_of_dicom_has_the_words_of_dicom(name: str) -> None:
    offered, known = CODE.validate_python(OFFERED[name]), IN_DICOM[name]
    assert (offered.value, offered.scheme) == (known.value, known.scheme_designator)
    # Names of SNOMED CT that no context group shortens end in the kind of concept.
    assert offered.meaning == known.meaning.removesuffix(" (disorder)")


def test_every_code_is_one_of_dicom_or_was_found_elsewhere() -> None:
    others = {
        CODE.validate_python(text).value for name, text in OFFERED.items() if name not in IN_DICOM
    }
    assert others == set(ELSEWHERE)
    known = {code.value for code in codes.SCT.concepts.values()}
    assert not others & known, "compare them with pydicom's"


@pytest.mark.parametrize("text", sorted(set(OFFERED.values())))
def test_every_identifier_is_one_of_a_concept_and_its_check_digit_is_right(text: str) -> None:
    code = CODE.validate_python(text)
    assert code.scheme == "SCT"
    assert code.value[-3:-1] == "00", "a concept of the international edition"
    assert check(code.value) == 0


def test_a_slip_of_a_finger_is_caught_by_the_check_digit() -> None:
    assert all(check(wrong) != 0 for wrong in ("233604006", "233640007", "23604007", "332604007"))


def test_every_modality_has_a_procedure_and_a_class() -> None:
    assert set(PROCEDURES) == set(SOP_CLASSES)


def check(identifier: str) -> int:
    """Verhoeff's scheme, as SNOMED CT's Release File Specification has it: 0 for a right one."""
    total = 0
    for position, digit in enumerate(reversed(identifier)):
        total = _after(total, _moved(int(digit), position))
    return total


def _after(first: int, second: int) -> int:
    """One element of the dihedral group of a pentagon after another; from 5 on they are flips."""
    turned = first - second if first > 4 else first + second
    return turned % 5 + 5 * ((first > 4) != (second > 4))


def _moved(digit: int, times: int) -> int:
    for _ in range(times):
        digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
    return digit
