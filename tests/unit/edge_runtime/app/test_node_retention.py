from __future__ import annotations

from edge_runtime.app.node import retention_rules
from edge_runtime.config.loading import parse_settings


def test_retention_begins_above_the_reserve_at_which_the_node_refuses() -> None:
    settings = parse_settings(
        {
            "node": {"min_free_bytes": 5_000_000_000},
            "retention": {"headroom_bytes": 100_000_000, "keep_s": 86_400},
        },
        {},
    )
    rules = retention_rules(settings)
    assert rules.free_bytes_target == 5_100_000_000
    assert rules.keep_us == 86_400_000_000


def test_the_least_time_is_never_longer_than_the_longest() -> None:
    settings = parse_settings({"retention": {"keep_s": 60, "least_keep_s": 600}}, {})
    rules = retention_rules(settings)
    assert rules.least_keep_us == rules.keep_us == 60_000_000
