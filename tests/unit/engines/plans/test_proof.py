"""A proof says what was compared with what; one that contradicts itself cannot be made."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.plan_bench import KEY, PACKAGE_DIGEST, REFERENCE, proof_of

from engines.plans.proof import MAX_PROOF_BYTES, Proof
from engines.plans.sealed import BOUNDS, SealedKind
from engines.plans.store import StoredPlan

STORED = StoredPlan(key=KEY, plan=b"plan", sha256="0d" * 32, proof=None)
PROOF = proof_of(STORED)

figures = st.floats(allow_nan=False, allow_infinity=False)


@given(max_absolute=figures, cosine=figures, items=st.integers(1, 10_000), failed=st.booleans())
def test_a_proof_is_read_back_as_it_was(
    max_absolute: float, cosine: float, items: int, *, failed: bool
) -> None:
    proof = replace(
        PROOF,
        max_absolute=max_absolute,
        cosine=cosine,
        golden_items=items,
        flips=items if failed else 0,
        passed=not failed,
    )
    assert Proof.parse(proof.canonical()) == proof
    assert len(proof.canonical()) <= MAX_PROOF_BYTES


def test_a_proof_is_never_too_large_to_be_kept() -> None:
    assert BOUNDS[SealedKind.PROOF].each_bytes >= MAX_PROOF_BYTES


def test_a_plan_that_decides_otherwise_has_not_passed() -> None:
    with pytest.raises(ValueError, match="has not passed"):
        replace(PROOF, flips=1)
    assert not replace(PROOF, flips=1, passed=False).passed


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["max_absolute", "cosine"])
def test_a_figure_is_a_number(field: str, figure: float) -> None:
    change: dict[str, Any] = {field: figure}
    with pytest.raises(ValueError, match="are numbers"):
        replace(PROOF, **change)


@pytest.mark.parametrize(
    "change", [{"golden_items": 0}, {"random_items": -1}, {"flips": -1, "passed": False}]
)
def test_a_proof_rests_on_something(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="golden items"):
        replace(PROOF, **change)


@pytest.mark.parametrize("field", ["key_digest", "plan_sha256", "package_digest"])
def test_a_proof_names_what_was_compared(field: str) -> None:
    change: dict[str, Any] = {field: "0d"}
    with pytest.raises(ValueError, match=field):
        replace(PROOF, **change)


@pytest.mark.parametrize("reference", ["", "x" * 200])
def test_a_proof_names_its_reference(reference: str) -> None:
    with pytest.raises(ValueError, match="reference"):
        replace(PROOF, reference=reference)


@pytest.mark.parametrize("change", [{"format": 2}, {"format": None}, {"more": 1}])
def test_a_form_of_another_release_is_refused(change: dict[str, object]) -> None:
    members = {**json.loads(PROOF.canonical()), **change}
    with pytest.raises(ValueError, match="this software"):
        Proof.parse(json.dumps(members).encode("ascii"))


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"\xff", b'{"format":1}'])
def test_what_is_no_proof_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Proof.parse(content)


def test_a_plan_goes_live_only_with_a_proof_of_this_package_and_reference() -> None:
    proven = replace(STORED, proof=PROOF)
    assert proven.is_proven_for(PACKAGE_DIGEST, REFERENCE)
    assert not STORED.is_proven_for(PACKAGE_DIGEST, REFERENCE)
    assert not proven.is_proven_for("0e" * 32, REFERENCE)
    assert not proven.is_proven_for(PACKAGE_DIGEST, "onnxruntime 1.31.0")
    failed = replace(PROOF, passed=False)
    assert not replace(STORED, proof=failed).is_proven_for(PACKAGE_DIGEST, REFERENCE)
