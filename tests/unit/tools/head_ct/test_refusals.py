from __future__ import annotations

from tools.head_ct.refusals import Refusals, count_refusals


def test_the_gate_lets_the_test_set_through_and_stops_it_when_the_gantry_leans() -> None:
    assert count_refusals(4) == Refusals(within=4, accepted=4, steep=4, refused=4)
