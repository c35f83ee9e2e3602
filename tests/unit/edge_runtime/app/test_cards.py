"""The page shows the card of the package that is active now, and of no other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from simulators.model_package import write_model_package
from simulators.released_package import believe

from edge_runtime.app.cards import ActiveCards
from edge_runtime.app.models import open_store
from edge_runtime.clock import SystemClock
from edge_runtime.config.loading import load_settings
from edge_runtime.config.settings import Settings
from edge_runtime.governance.models import ModelStore
from edge_runtime.process import database_path, models_path
from edge_runtime.store.database import connect


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "state").mkdir()
    file = tmp_path / "edge-triage.toml"
    file.write_text(f'[device]\nstate_dir = "{tmp_path / "state"}"\n', encoding="utf-8")
    return load_settings(file)


@pytest.fixture
def connection(settings: Settings) -> Iterator[sqlite3.Connection]:
    with closing(connect(database_path(settings))) as connection:
        yield connection


@pytest.fixture
def store(settings: Settings, connection: sqlite3.Connection) -> ModelStore:
    return open_store(settings, connection, SystemClock(), actor="test", verify=believe)


def cards_of(settings: Settings) -> ActiveCards:
    return ActiveCards(database_path(settings), models_path(settings))


def test_the_card_comes_with_the_activation_and_goes_with_it(
    settings: Settings, store: ModelStore, tmp_path: Path
) -> None:
    write_model_package(tmp_path / "package")
    digest = store.install(tmp_path / "package").package.digest
    cards = cards_of(settings)
    assert cards.read("bright") is None, "installed is not active"
    store.activate("bright")
    page = cards.read("bright")
    assert page is not None
    assert digest in page.html
    assert cards.read("bright") is page, "rendered once"
    assert cards.read("another") is None
    store.retire("bright")
    assert cards.read("bright") is None


def test_a_package_that_was_changed_on_disk_shows_no_card(
    settings: Settings, store: ModelStore, tmp_path: Path
) -> None:
    write_model_package(tmp_path / "package")
    digest = store.install(tmp_path / "package").package.digest
    store.activate("bright")
    (models_path(settings) / digest / "card.toml").write_text("disclaimers = []", "utf-8")
    assert cards_of(settings).read("bright") is None
