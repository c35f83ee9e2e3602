"""What the settings say about TLS, and what they refuse because it protects nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from edge_runtime.config.node_settings import NodeSettings
from edge_runtime.config.peers import PeerSettings
from tools.config import app

_TLS = {"certificate_file": "c", "key_file": "k", "ca_file": "a"}
_SHA = "ab" * 32


def _node(callers: list[Mapping[str, Any]] | None = None, **tls: object) -> NodeSettings:
    return NodeSettings.model_validate({"tls": {**_TLS, **tls}, "callers": callers or []})


def test_a_certificate_opens_the_registered_port_and_asks_callers_for_theirs() -> None:
    tls = _node().tls
    assert tls is not None
    assert (tls.port, tls.require_client_certificate, tls.only) == (2762, True, False)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"tls": {**_TLS, "ca_file": None}}, "whose certificates are trusted"),
        ({"tls": {"certificate_file": "c"}}, "key_file"),
        ({"tls": _TLS, "port": 2762}, "have to differ"),
        (
            {"tls": {**_TLS, "only": True}, "callers": [{"ae_title": "A", "clear_text": True}]},
            "cannot call while node.tls has 'only'",
        ),
        (
            {"callers": [{"ae_title": "A", "certificate_sha256": _SHA}]},
            "needs the section node.tls",
        ),
        (
            {
                "tls": {**_TLS, "ca_file": None, "require_client_certificate": False},
                "callers": [{"ae_title": "A", "certificate_sha256": _SHA}],
            },
            "needs 'ca_file' in node.tls",
        ),
        (
            {
                "tls": _TLS,
                "callers": [{"ae_title": "A", "certificate_sha256": _SHA, "clear_text": True}],
            },
            "cannot have 'clear_text' as well",
        ),
        ({"callers": [{"ae_title": "A", "certificate_sha256": "AB" * 32}]}, "should match pattern"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(node: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        NodeSettings.model_validate(node)


def test_a_node_without_clear_text_may_have_any_port_number() -> None:
    node = NodeSettings.model_validate({"tls": {**_TLS, "only": True}, "port": 2762})
    assert node.tls is not None


@pytest.mark.parametrize("key", ["ca_file", "tls_name"])
def test_a_peer_that_is_called_in_clear_text_has_no_tls_settings(key: str) -> None:
    peer = {"ae_title": "PACS", "host": "pacs", "port": 104, key: "x"}
    with pytest.raises(ValidationError, match="without 'tls = true'"):
        PeerSettings.model_validate(peer)
    assert PeerSettings.model_validate({**peer, "tls": True}).tls


def test_show_and_validate_know_the_example_for_tls() -> None:
    example = Path(str(resources.files("firmware_configs"))) / "sites" / "tls.toml"
    runner = CliRunner()
    assert runner.invoke(app, ["validate", str(example)]).exit_code == 0
    shown = runner.invoke(app, ["show", "--config", str(example)]).stdout
    assert "node.tls.port = 2762\n" in shown
    assert "node.learning = True\n" in shown
    assert "outputs.structured_report.peer.tls = True\n" in shown
