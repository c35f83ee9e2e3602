"""The cards of the active models, for the page."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import structlog

from edge_runtime.governance.card_page import CardPage, CardTheme, render_card_page
from edge_runtime.governance.card_source import card_source
from edge_runtime.store.database import connect
from edge_runtime.store.model_packages import packages_in_use
from engines.errors import PackageError, PackageIntegrityError
from engines.loading import load_package

_log = structlog.get_logger()


class ActiveCards:
    """Renders the card of each active package once; one at a time, from any thread."""

    def __init__(self, database: Path, models: Path) -> None:
        self._database = database
        self._models = models
        self._lock = threading.Lock()
        self._rendered: dict[str, tuple[str, CardPage]] = {}

    def read(self, name: str) -> CardPage | None:
        """Return the card of the active model of that name; None where it cannot be had."""
        with self._lock:
            digest = self._active_digest(name)
            if digest is None:
                self._rendered.pop(name, None)
                return None
            known = self._rendered.get(name)
            if known is not None and known[0] == digest:
                return known[1]
            return self._render(name, digest)

    def _active_digest(self, name: str) -> str | None:
        with contextlib.closing(connect(self._database)) as connection:
            used = packages_in_use(connection)
        active = (item.digest for item in used if item.name == name and not item.is_shadow)
        return next(active, None)

    def _render(self, name: str, digest: str) -> CardPage | None:
        try:
            package = load_package(self._models / digest)
            if package.digest != digest:
                raise PackageIntegrityError("the folder holds another package; install it again")
            page = render_card_page(card_source(package), CardTheme.DEVICE)
        except PackageError as error:
            _log.error("model.card_unreadable", model=name, remedy=str(error))
            return None
        self._rendered[name] = (digest, page)
        return page
