from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.pipeline.prepared import PreparedImages
from engines.preprocessing.values import Picture

KIB = 1024


def _slice(size_kib: int = 1) -> Picture:
    values = np.zeros((size_kib, 256), dtype=np.float32)
    return Picture(values=values, extremes=(0.0, 1.0), position_mm=0.0, thickness_mm=1.0)


def test_a_kept_slice_is_given_back_for_its_study_and_model_only() -> None:
    kept = PreparedImages(max_bytes=10 * KIB)
    prepared = _slice()
    kept.put(1, "m", 7, prepared)
    assert kept.get(1, "m", 7) is prepared
    assert kept.get(2, "m", 7) is None
    assert kept.get(1, "n", 7) is None
    assert kept.get(1, "m", 8) is None


def test_a_forgotten_study_frees_its_memory() -> None:
    kept = PreparedImages(max_bytes=10 * KIB)
    kept.put(1, "m", 7, _slice(2))
    kept.put(2, "m", 8, _slice(3))
    kept.forget(1, "m")
    kept.forget(1, "m")
    assert kept.held_bytes == 3 * KIB
    assert kept.get(1, "m", 7) is None


def test_the_study_that_was_touched_longest_ago_gives_way() -> None:
    kept = PreparedImages(max_bytes=3 * KIB)
    kept.put(1, "m", 1, _slice())
    kept.put(2, "m", 2, _slice())
    kept.put(1, "m", 3, _slice())
    kept.put(3, "m", 4, _slice())
    assert kept.get(2, "m", 2) is None
    assert kept.get(1, "m", 1) is not None
    assert kept.held_bytes == 3 * KIB


def test_a_slice_that_does_not_fit_beside_its_own_study_displaces_nothing() -> None:
    kept = PreparedImages(max_bytes=4 * KIB)
    kept.put(1, "m", 1, _slice())
    kept.put(2, "m", 2, _slice(3))
    kept.put(2, "m", 3, _slice(3))
    assert kept.get(1, "m", 1) is not None
    assert kept.get(2, "m", 2) is not None
    assert kept.get(2, "m", 3) is None


def test_a_slice_put_twice_counts_once() -> None:
    kept = PreparedImages(max_bytes=10 * KIB)
    kept.put(1, "m", 1, _slice())
    kept.put(1, "m", 1, _slice())
    assert kept.held_bytes == KIB


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "forget"]),
        st.integers(1, 4),
        st.integers(1, 9),
        st.integers(1, 12),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_bound_holds_and_what_is_held_is_what_is_counted(
    steps: list[tuple[str, int, int, int]],
) -> None:
    kept = PreparedImages(max_bytes=10 * KIB)
    for step, study, instance, size_kib in steps:
        if step == "put":
            kept.put(study, "m", instance, _slice(size_kib))
        else:
            kept.forget(study, "m")
        found = [
            prepared.nbytes
            for study_id in range(1, 5)
            for instance_id in range(1, 10)
            if (prepared := kept.get(study_id, "m", instance_id)) is not None
        ]
        assert kept.held_bytes == sum(found) <= 10 * KIB
