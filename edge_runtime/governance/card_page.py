"""The card as one HTML page that needs nothing but itself.

Invariants:

* The page loads nothing and runs nothing: no scripts, and a Content-Security-Policy in the page
  that allows its one style sheet, by digest, and pictures that stand in it.
* Every text is escaped by the template; no text of a package becomes markup.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import jinja2
from markupsafe import Markup

from edge_runtime.governance import card_charts
from edge_runtime.governance.card_source import CardSource
from edge_runtime.governance.card_view import card_view
from edge_runtime.model.finding import TRIAGE_NOTICE
from engines.figures import FigureImage

_TEMPLATES = Path(__file__).with_name("templates")


class CardTheme(str, Enum):
    """Where the page is read."""

    FILE = "file"
    """Anywhere, as a file: light or dark as the reader's browser says."""
    DEVICE = "device"
    """On the device's own page: always dark, with the way back to the device's pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPage:
    """The page, and the policy under which it is to be served."""

    html: str
    policy: str
    """Content-Security-Policy (CSP level 3)."""


def render_card_page(source: CardSource, theme: CardTheme = CardTheme.FILE) -> CardPage:
    """Writes the card as HTML in UTF-8."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    style = (_TEMPLATES / "card.css").read_text("utf-8")
    policy = _policy(style)
    html = environment.get_template("card.html").render(
        card=card_view(source),
        chart=card_charts,
        notice=TRIAGE_NOTICE,
        on_device=theme is CardTheme.DEVICE,
        policy=policy,
        style=Markup(style),  # noqa: S704 - our own style sheet
    )
    return CardPage(html=html, policy=f"{policy}; frame-ancestors 'none'")


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data_uri(image: FigureImage) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.content).decode()}"
