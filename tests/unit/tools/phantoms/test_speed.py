from __future__ import annotations

import json

import pytest

from tools.phantoms.speed import main


def test_the_command_tells_how_many_slices_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--slices", "4", "--matrix", "64", "--syntax", "rle"]) == 0

    speed = json.loads(capsys.readouterr().out)
    assert speed["slices"] == 4
    assert speed["bytes_written"] > 4 * 1000
    assert speed["wall_slices_per_s"] > 0
    assert speed["cpu_slices_per_s"] > 0
