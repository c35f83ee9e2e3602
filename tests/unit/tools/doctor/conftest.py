"""Settings of a device in a temporary folder, and the doctor in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.config.loading import parse_settings
from tools.demo.ports import free_port
from tools.doctor.findings import Context, Finding, Status

MakeContext = Callable[..., Context]
Examine = Callable[..., Mapping[str, Finding]]

_EXAMINE = """
import json, sys
from pathlib import Path
import tools.cli  # as the command itself: what it imports must not hide what is missing
from tools.doctor.command import examine
{prelude}
answers = examine(Path(sys.argv[1]))
print(json.dumps([[a.name, a.finding.status, a.finding.found, a.finding.remedy] for a in answers]))
"""
_DEADLINE_S = 120


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def make_context(state_dir: Path) -> MakeContext:
    """Make a context of settings with the given tables, on ports that are free."""

    def make(**tables: Mapping[str, Any]) -> Context:
        defaults: dict[str, dict[str, Any]] = {
            "device": {"state_dir": str(state_dir)},
            "node": {"bind": "127.0.0.1", "port": free_port()},
            "web": {"port": free_port()},
        }
        for section, values in tables.items():
            defaults[section] = {**defaults.get(section, {}), **values}
        return Context(settings=parse_settings(defaults, {}))

    return make


@pytest.fixture
def examine_apart(tmp_path: Path) -> Examine:
    """Run the whole doctor in a process of its own: behind ``command``, after ``prelude``.

    ``paths``, where given, are all that the process can import from.
    """

    def examine(
        state_dir: Path,
        *,
        command: Sequence[str] = (),
        prelude: str = "",
        paths: Sequence[str] | None = None,
    ) -> Mapping[str, Finding]:
        config = tmp_path / "device.toml"
        config.write_text(
            f'[device]\nstate_dir = "{state_dir}"\n[models]\npackages = []\n'
            f'[node]\nbind = "127.0.0.1"\nport = {free_port()}\n[web]\nport = {free_port()}\n'
        )
        script = _EXAMINE.format(prelude=prelude)
        options = ["-B"]
        if paths is not None:
            options.append("-S")
            script = f"import sys; sys.path[:0] = {list(paths)!r}\n{script}"
        done = subprocess.run(
            [*command, sys.executable, *options, "-c", script, str(config)],
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return {
            name: Finding(status=Status(status), found=found, remedy=remedy)
            for name, status, found, remedy in json.loads(done.stdout)
        }

    return examine
