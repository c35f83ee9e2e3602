"""The readable card: everything is on it, nothing on it runs or loads, and it is accessible."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from simulators.model_papers import SVG, card_source, card_table, png

from edge_runtime.governance.card_page import CardTheme, render_card_page
from edge_runtime.governance.card_source import CardSource

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> \" ' & {{ 7*7 }} {% if %} 日本 😀"
VOID = {"meta", "img", "br", "link", "input", "line", "circle", "rect", "polyline", "polygon"}


class Page(HTMLParser):
    """Elements with their attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(source: CardSource, theme: CardTheme = CardTheme.FILE) -> Page:
    return Page(render_card_page(source, theme).html)


def test_every_text_of_the_card_is_on_the_page() -> None:
    table = card_table()
    table["uses"]["out_of_scope"] = ["Dogs", "Cats"]
    table["summary"]["text"] = "First paragraph.\n\nSecond paragraph."
    page = page_of(card_source(table))
    for words in ("Dogs", "Cats", "Tests", "2025-01-31", "Invented cases.", "ab" * 32, "cd" * 32):
        assert words in page.text
    assert "<p>First paragraph.</p>\n<p>Second paragraph.</p>" in (
        render_card_page(card_source(table)).html
    )


def test_the_disclaimers_stand_on_top_and_the_notice_at_the_end_too() -> None:
    page = page_of(card_source())
    places = [
        page.text.index(words)
        for words in (
            "For triage, not for diagnosis.",
            "Demonstration, not a cleared device.",
            "For tests only.",
            "Not for patients.",
            "Finds brightness.",
        )
    ]
    assert places == sorted(places)
    assert "For triage, not for diagnosis" in page.text[page.text.index("Finds brightness.") :]


def test_numbers_tables_and_charts_are_those_of_the_evaluation() -> None:
    page = page_of(card_source())
    assert "0.938" in page.text
    assert "0.905–0.960" in page.text, "an interval is never shown narrower than it is"
    captions = re.findall(r"<caption>(.*?)</caption>", render_card_page(card_source()).html)
    assert captions == [
        *("Measured", "By sex", "Measured", "Mean pixel after normalisation, 1", "By quality"),
    ]
    titles = [svg for svg in page.named("svg") if svg["class"] == "chart"]
    assert len(titles) == 4
    assert page.text.count("Under blur") >= 1, "what no metric quotes is shown as well"
    assert "Specificity, blurred" in page.text
    assert "Reference window: children" in page.text


def test_a_card_without_further_measurements_and_figures_has_no_empty_sections() -> None:
    table = card_table()
    table["figures"] = []
    table["metrics"]["safety"]["curves"] = ["noise", "blur"]
    table["metrics"]["safety"]["estimates"] = ["sensitivity", "specificity_blurred"]
    page = page_of(card_source(table))
    assert "Further measurements" not in page.text
    assert "Figures" not in page.text


def test_pictures_stand_in_the_page_with_their_words() -> None:
    images = page_of(card_source()).named("img")
    assert [image["alt"] for image in images] == ["A curve near the corner.", "A blue field."]
    for image, (kind, content) in zip(images, (("png", png()), ("svg+xml", SVG)), strict=True):
        assert image["src"] == f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("theme", CardTheme)
def test_nothing_runs_and_nothing_is_loaded(theme: CardTheme) -> None:
    rendered = render_card_page(card_source(), theme)
    page = Page(rendered.html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in page.elements:
        assert not any(key.startswith("on") or key == "style" for key in attributes), tag
        for key in ("src", "href", "xlink:href", "action"):
            value = attributes.get(key, "#")
            assert value.startswith(("#", "data:image/", "/")), value
            assert not value.startswith("//")
    assert "http://" not in rendered.html
    assert "https://" not in rendered.html


def test_the_policy_allows_the_pages_own_style_and_pictures_only() -> None:
    rendered = render_card_page(card_source())
    match = re.search(r"<style>(.*?)</style>", rendered.html, re.DOTALL)
    assert match is not None
    digest = base64.b64encode(hashlib.sha256(match.group(1).encode()).digest()).decode()
    policy = next(
        meta["content"]
        for meta in Page(rendered.html).named("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert rendered.policy == f"{policy}; frame-ancestors 'none'"


def test_hostile_text_is_text() -> None:
    table = card_table()
    table["summary"] |= {"text": HOSTILE, "keywords": [HOSTILE]}
    table["figures"][0] |= {"title": HOSTILE, "alt": HOSTILE}
    table["disclaimers"] = [HOSTILE]
    source = card_source(table, title=HOSTILE, intended_use=HOSTILE, disclaimer=HOSTILE)
    page = page_of(source)
    assert page.text.count(HOSTILE) >= 6
    assert page.named("img")[0]["alt"] == HOSTILE
    assert len(page.named("img")) == 2
    assert page.named("script") == []


def test_whoever_does_not_see_the_page_can_read_it() -> None:
    page = page_of(card_source())
    assert page.named("html")[0]["lang"] == "en"
    assert len(page.named("h1")) == 1
    assert len(page.named("main")) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.elements:
        for target in attributes.get("aria-labelledby", "").split():
            assert target in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert all(header.get("scope") in {"col", "row"} for header in page.named("th"))
    for svg in page.named("svg"):
        assert svg.get("role") == "img" or svg.get("aria-hidden") == "true"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels)), (
        "no level of heading is skipped"
    )


def test_on_the_device_the_page_leads_back_and_elsewhere_it_leads_nowhere() -> None:
    links = {link["href"] for link in page_of(card_source(), CardTheme.DEVICE).named("a")}
    assert {"/", "/models", "/device"} <= links
    links = {link["href"] for link in page_of(card_source()).named("a")}
    assert all(link.startswith("#") for link in links)


def test_the_same_package_gives_the_same_page() -> None:
    assert render_card_page(card_source()) == render_card_page(card_source())
