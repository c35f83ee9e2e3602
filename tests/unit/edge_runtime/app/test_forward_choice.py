from __future__ import annotations

import pytest

from edge_runtime.app.worker import forward_choice
from edge_runtime.config.settings import Settings
from edge_runtime.model.delivery import Channel

PACS = {"ae_title": "PACS", "host": "192.0.2.9", "port": 104}
CALLERS = [
    {"ae_title": "CT01"},
    {"ae_title": "QA", "forward": False},
    {"ae_title": "MR01", "address": "192.0.2.1", "forward": False},
    {"ae_title": "MR01", "address": "192.0.2.2"},
]


def choose(callers: set[str], *, peer: dict[str, object] | None = PACS) -> list[Channel]:
    settings = Settings.model_validate(
        {"node": {"callers": CALLERS}, "outputs": {"forward": {"peer": peer} if peer else {}}}
    )
    return list(forward_choice(settings)(frozenset(callers)))


@pytest.mark.parametrize(
    ("callers", "is_forwarded"),
    [
        ({"CT01"}, True),
        ({"QA"}, False),
        ({"QA", "CT01"}, True),
        ({"MR01"}, True),
        ({"STRANGER"}, True),
        (set(), True),
    ],
)
def test_only_a_study_all_of_whose_callers_are_kept_back_is_not_forwarded(
    callers: set[str], is_forwarded: bool
) -> None:
    assert choose(callers) == ([Channel.FORWARD] if is_forwarded else [])


def test_nothing_is_forwarded_where_no_peer_is_set_up() -> None:
    assert choose({"CT01"}, peer=None) == []
