"""``edge-triage callers``: who called the node without being let in, and what would let them in.

AE titles and addresses are shown on the device's own terminal and nowhere else. They come from
whoever called: neither a terminal nor TOML may take anything in them for its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from json import dumps
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from dicom_node.admission import Admitted, Call, RefusalReason, decide
from dicom_node.errors import HandshakeFault
from edge_runtime.app.node import node_settings
from edge_runtime.config.loading import load_settings, parse_settings, parse_toml, read_toml
from edge_runtime.config.peers import CallerSettings
from edge_runtime.config.settings import Settings
from edge_runtime.errors import SettingsError
from edge_runtime.store.callers import CallerView, list_callers
from tools.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)
from tools.studies import open_database

Entry = Mapping[str, str | bool]
"""What stands in the settings about one caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do about a caller."""

    words: str
    toml: str | None = None
    """What to add to the settings file, tried out on it; None where no line helps."""


def callers(config: ConfigOption = DEFAULT_CONFIG, *, json: JsonOption = False) -> None:
    """List who called without being let in (node.learning), and the lines that would admit them."""
    with explained_errors(), open_database(config) as connection:
        advisor = Advisor(config)
        found = [(view, advisor.advise(view)) for view in list_callers(connection)]
    if json:
        listed = [_as_json(view, advice) for view, advice in found]
        print_json({"learning": advisor.settings.node.learning, "callers": listed})
        return
    if not found:
        out.print(_nobody(advisor.settings), soft_wrap=True)
    for view, advice in found:
        _show(view, advice)


def _nobody(settings: Settings) -> str:
    if settings.node.learning:
        return "Nobody has called without being let in."
    return "Nobody was noted: set node.learning = true, restart the device, and let the peer call."


class Advisor:
    """Judges callers by a settings file."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            SettingsError: It cannot be used.
        """
        self.settings = load_settings(path)
        self._path = path
        self._tables = read_toml(path)
        self._takes_tables = _takes_tables(path)
        self._policy = node_settings(self.settings).admission

    def advise(self, view: CallerView) -> Advice:
        """Say what to do about a caller, by the settings as they are now."""
        if isinstance(view.reason, HandshakeFault):
            return Advice(words=f"No TLS connection came about: {view.reason.value}.")
        decision = decide(self._policy, view.call)
        if isinstance(decision, Admitted):
            return Advice(
                words="These settings admit it: restart the device if it still runs with others."
            )
        if decision.reason is RefusalReason.CALLED_AE_TITLE:
            return Advice(
                words=f"It calls {shown(view.call.called_ae_title)}. Correct that on the peer: "
                f"this node is {shown(self._policy.ae_title)} (node.ae_title)."
            )
        return self._line_for(view.call, decision.reason)

    def _line_for(self, call: Call, reason: RefusalReason) -> Advice:
        entry = self._entry(call, reason)
        try:
            CallerSettings.model_validate(entry)
        except ValidationError:
            return Advice(
                words="DICOM does not allow such a calling AE title (PS3.5 6.2), so no line can "
                "admit it. Correct it on the peer."
            )
        if not self._admits(call, entry):
            return Advice(words=f"{_WORDS[reason]} No line can admit it as it is.")
        return Advice(words=_WORDS[reason], toml=self._as_toml(entry))

    def _entry(self, call: Call, reason: RefusalReason) -> Entry:
        entry: dict[str, str | bool] = {
            "ae_title": call.calling_ae_title,
            "address": call.address,
        }
        if self._policy.requires_tls and not call.is_encrypted:
            entry["clear_text"] = True
        if reason is RefusalReason.CERTIFICATE and call.certificate_sha256 is not None:
            entry["certificate_sha256"] = call.certificate_sha256
        return entry

    def _admits(self, call: Call, entry: Entry) -> bool:
        """Try the entry on the settings."""
        node = self._tables.get("node", {})
        added = {**node, "callers": [*node.get("callers", ()), entry]}
        try:
            settings = parse_settings({**self._tables, "node": added}, os.environ)
        except SettingsError:
            return False
        return isinstance(decide(node_settings(settings).admission, call), Admitted)

    def _as_toml(self, entry: Entry) -> str:
        pairs = [f"{key} = {dumps(value)}" for key, value in entry.items()]
        if self._takes_tables:
            return "\n".join(("[[node.callers]]", *pairs))
        return f"{{ {', '.join(pairs)} }},"


def _takes_tables(path: Path) -> bool:
    """False where the callers stand in one list, ``callers = [...]``, which TOML keeps closed."""
    try:
        parse_toml(path.read_text("utf-8") + "\n[[node.callers]]\n", path)
    except SettingsError:
        return False
    return True


_WORDS: Mapping[RefusalReason, str] = MappingProxyType(
    {
        RefusalReason.CALLING_AE_TITLE: "It is not in node.callers.",
        RefusalReason.ADDRESS: "Its title is in node.callers with another address. If the peer has "
        "moved, correct that entry; else add one.",
        RefusalReason.CLEAR_TEXT: "It calls in clear text. Turn on TLS on the peer, with the port "
        "in node.tls.port, or allow it clear text.",
        RefusalReason.CERTIFICATE: "Its title is bound to another certificate. If the peer has a "
        "new one, correct that entry; else add one.",
    }
)


def shown(text: str) -> str:
    """A text of a peer in quotes, with every sign escaped that a terminal might act on."""
    return ascii(text)


def _show(view: CallerView, advice: Advice) -> None:
    call = view.call
    who = shown(call.calling_ae_title) if call.calling_ae_title else "somebody"
    way = "TLS" if call.is_encrypted else "clear text"
    where = f"{who} from {shown(call.address)[1:-1]}, {way}"
    calls = "1 call" if view.calls == 1 else f"{view.calls} calls"
    lines = [f"{where}: {calls}, the last at {_time(view.last_seen_wall_us)}"]
    lines.append(f"  {advice.words}")
    if advice.toml is not None:
        lines += [f"    {line}" for line in advice.toml.splitlines()]
    out.print("\n".join(lines), markup=False, soft_wrap=True)


def _as_json(view: CallerView, advice: Advice) -> dict[str, object]:
    call = view.call
    return {
        "calling_ae_title": call.calling_ae_title,
        "called_ae_title": call.called_ae_title,
        "address": call.address,
        "encrypted": call.is_encrypted,
        "certificate_sha256": call.certificate_sha256,
        "reason": view.reason.name,
        "calls": view.calls,
        "first_seen": _time(view.first_seen_wall_us),
        "last_seen": _time(view.last_seen_wall_us),
        "advice": advice.words,
        "toml": advice.toml,
    }


def _time(wall_us: int) -> str:
    moment = datetime.fromtimestamp(wall_us // 1_000_000, tz=timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
