from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes

from edge_runtime.model.reasons import REASONS, ReasonCode, ReasonKind, ResultStatus


def test_every_code_has_a_row() -> None:
    assert set(REASONS) == set(ReasonCode)


@pytest.mark.parametrize("code", ReasonCode)
def test_every_row_is_one_plain_sentence_that_never_reads_as_negative(code: ReasonCode) -> None:
    sentence = REASONS[code].sentence
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert len(sentence) <= 100
    assert not {"negative", "normal", "unremarkable"} & set(sentence.lower().split())


@pytest.mark.parametrize("code", ReasonCode)
def test_codes_are_words_fit_for_labels(code: ReasonCode) -> None:
    assert code.value == code.name.lower()
    assert len(code.value) <= 40


def test_sentences_tell_codes_apart() -> None:
    assert len({row.sentence for row in REASONS.values()}) == len(REASONS)


def test_failures_are_always_in_scope() -> None:
    assert all(row.in_scope for row in REASONS.values() if row.kind is ReasonKind.FAILED)


def test_result_status_codes_are_those_of_cid_6042() -> None:
    assert ResultStatus.FAILED.value == codes.DCM.Failed.value
    assert ResultStatus.NOT_ATTEMPTED.value == codes.DCM.NotAttempted.value
    assert REASONS[ReasonCode.ENGINE_FAILED].result_status is ResultStatus.FAILED
    assert REASONS[ReasonCode.GANTRY_TILT].result_status is ResultStatus.NOT_ATTEMPTED
