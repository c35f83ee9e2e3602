"""The key of a plan: every part of it counts, and its form does not depend on who writes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.plan_bench import KEY

from engines.contract import Backend, Precision
from engines.plans.key import MAX_KEY_BYTES, QUANTISED_FLAG, PlanKey

OTHERS: dict[str, Any] = {
    "onnx_sha256": "0c" * 32,
    "backend": Backend.TENSORRT_RTX,
    "library_version": "10.3.1",
    "compute_capability": (8, 9),
    "gpu_name": "Orin Nano",
    "driver_version": 12070,
    "cuda_version": "12.7",
    "profiles": "slabs 1x3x224x224",
    "precision": Precision.FP32,
    "flags": ("STRONGLY_TYPED",),
    "dla_core": 0,
}

words = st.text(max_size=40)
keys = st.builds(
    PlanKey,
    onnx_sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    backend=st.sampled_from(Backend),
    library_version=words,
    compute_capability=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    gpu_name=words,
    driver_version=st.integers(0, 99_999),
    cuda_version=words,
    profiles=words,
    precision=st.sampled_from(Precision),
    flags=st.lists(words, max_size=4).map(tuple),
    dla_core=st.none() | st.integers(0, 3),
)


def test_every_field_has_another_value_here() -> None:
    assert OTHERS.keys() == {field.name for field in fields(PlanKey)}


@pytest.mark.parametrize("field", sorted(OTHERS))
def test_another_value_of_any_field_is_another_plan(field: str) -> None:
    other = replace(KEY, **{field: OTHERS[field]})
    assert other.digest() != KEY.digest()


def test_a_model_with_q_dq_nodes_has_settled_its_numbers_itself() -> None:
    for precision in Precision:
        key = replace(KEY, precision=precision)
        assert key.numbers == precision.value
        assert replace(key, flags=(QUANTISED_FLAG,)).numbers == "int8 (Q/DQ)"


def test_flags_count_in_any_order_and_once() -> None:
    same = replace(KEY, flags=(*reversed(KEY.flags), KEY.flags[0]))
    assert same.digest() == KEY.digest()


@given(left=keys, right=keys)
def test_two_keys_have_one_form_only_when_they_mean_the_same(left: PlanKey, right: PlanKey) -> None:
    means_the_same = replace(left, flags=()) == replace(right, flags=()) and set(left.flags) == set(
        right.flags
    )
    assert (left.canonical() == right.canonical()) == means_the_same


@given(key=keys)
def test_a_key_is_read_back_from_its_form(key: PlanKey) -> None:
    form = key.canonical()
    assert form.isascii()
    assert PlanKey.parse(form).canonical() == form
    assert key.digest() == hashlib.sha256(form).hexdigest()


def test_neighbouring_fields_do_not_run_into_each_other() -> None:
    left = replace(KEY, library_version="1", cuda_version="23")
    right = replace(KEY, library_version="12", cuda_version="3")
    assert left.digest() != right.digest()


def test_enums_are_kept_by_name_and_never_by_number() -> None:
    members = json.loads(KEY.canonical())
    assert (members["backend"], members["precision"]) == ("tensorrt", "fp16")


@pytest.mark.parametrize("field", ["onnx_sha256", "profiles", "precision", "flags", "dla_core"])
def test_measured_times_are_shared_by_models(field: str) -> None:
    assert replace(KEY, **{field: OTHERS[field]}).platform() == KEY.platform()


@pytest.mark.parametrize(
    "field",
    [
        "backend",
        "library_version",
        "compute_capability",
        "gpu_name",
        "driver_version",
        "cuda_version",
    ],
)
def test_measured_times_are_of_one_platform(field: str) -> None:
    assert replace(KEY, **{field: OTHERS[field]}).platform() != KEY.platform()


@pytest.mark.parametrize("digest", ["", "0A" * 32, "0a" * 31, "0a" * 32 + "\n", "../" + "a" * 61])
def test_a_digest_of_another_form_is_refused(digest: str) -> None:
    with pytest.raises(ValueError, match="onnx_sha256"):
        replace(KEY, onnx_sha256=digest)


def test_a_key_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than"):
        replace(KEY, profiles="x" * MAX_KEY_BYTES)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"format": None},
        {"backend": "pickle"},
        {"precision": 7},
        {"compute_capability": 8},
        {"more": 1},
        {"flags": ["b", "a"]},
        {"flags": None},
    ],
)
def test_a_form_of_another_release_is_refused(change: dict[str, object]) -> None:
    members = {**json.loads(KEY.canonical()), **change}
    form = json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
    with pytest.raises(ValueError, match=r"key|valid"):
        PlanKey.parse(form)


@pytest.mark.parametrize("form", [b"", b"[]", b"7", b"\xff", b'{"format": 1}'])
def test_what_is_no_key_is_refused(form: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        PlanKey.parse(form)
