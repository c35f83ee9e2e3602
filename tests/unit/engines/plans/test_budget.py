"""How much memory an engine may take beside all else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import EngineMemoryError
from engines.plans.budget import LEAST_WORKSPACE_BYTES, MIB, workspace_bytes

GIB = 1 << 30


def test_what_is_wanted_is_given_where_much_is_free() -> None:
    assert workspace_bytes(wanted=GIB, free=20 * GIB, total=24 * GIB, is_integrated=False) == GIB


def test_a_card_keeps_a_margin() -> None:
    got = workspace_bytes(wanted=8 * GIB, free=4 * GIB, total=8 * GIB, is_integrated=False)
    assert got == 4 * GIB - 410 * MIB  # a twentieth of 8 GiB, in whole MiB


def test_a_small_card_keeps_a_quarter_of_a_gibibyte() -> None:
    got = workspace_bytes(wanted=8 * GIB, free=GIB, total=2 * GIB, is_integrated=False)
    assert got == GIB - 256 * MIB


def test_a_board_that_shares_its_memory_keeps_more() -> None:
    got = workspace_bytes(wanted=8 * GIB, free=3 * GIB, total=8 * GIB, is_integrated=True)
    assert got == 2 * GIB


def test_too_little_is_an_error_that_names_memory_and_a_remedy() -> None:
    with pytest.raises(EngineMemoryError, match=r"1030 of 8192 MiB are free.*stop what else"):
        workspace_bytes(wanted=GIB, free=1030 * MIB, total=8 * GIB, is_integrated=True)


def test_settings_that_allow_too_little_are_an_error_of_their_own() -> None:
    with pytest.raises(EngineMemoryError, match="allow it more"):
        workspace_bytes(wanted=8 * MIB, free=8 * GIB, total=8 * GIB, is_integrated=True)


@given(
    wanted=st.integers(LEAST_WORKSPACE_BYTES, 1 << 36),
    total=st.integers(0, 1 << 38),
    part=st.floats(0, 1),
    is_integrated=st.booleans(),
)
def test_never_more_than_wanted_nor_than_what_is_free(
    wanted: int, total: int, part: float, *, is_integrated: bool
) -> None:
    free = int(total * part)
    try:
        got = workspace_bytes(wanted=wanted, free=free, total=total, is_integrated=is_integrated)
    except EngineMemoryError:
        assert free < LEAST_WORKSPACE_BYTES + max(GIB, total // 8)
    else:
        assert LEAST_WORKSPACE_BYTES <= got <= min(wanted, free - 256 * MIB)
        assert got % MIB == 0
