"""The benchmark of reading compares what it says it compares; how fast is not asked here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tools.bench.readers.measure import Plan, measure
from tools.bench.readers.names import Job
from tools.bench.readers.roster import readers_of
from tools.cli import app
from tools.phantoms.encoding import PhantomSyntax

SLICES = 30
TRAITS = {"anisotropic-pixels", "slope-per-slice", "missing-slice", "slice-twice", "gantry-tilt"}


def _bench(*arguments: str) -> dict[str, Any]:
    answer = CliRunner().invoke(
        app, ["bench", "preprocess", "--slices", str(SLICES), "--rounds", "1", *arguments]
    )
    assert answer.exit_code == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    assert found["benchmark"] == "preprocess"
    return found


@pytest.mark.peer
def test_our_volumes_are_exact_beside_every_peer_on_this_machine() -> None:
    found = _bench("--json", "--peers", "--syntaxes", "explicit")
    readers = {name.value for name in readers_of(Job.VOLUME, peers_too=True)}
    assert set(found["readers"]) == readers
    assert set(found["missing"]).isdisjoint(readers)
    assert {cell["reader"] for cell in found["cells"] if cell["job"] == "volume"} == readers
    for cell in found["cells"]:
        assert cell["wall_ms"]["count"] == 1
        assert 0 < cell["wall_ms"]["lowest"] <= cell["wall_ms"]["median"]
        assert cell["peak_rss_mb"] > 20
    assert {ratio["to"] for ratio in found["ratios"]} == readers - {"ours"}
    volumes = {
        each["trait"]: each
        for each in found["found"]
        if each["reader"] == "ours" and each["job"] == "volume"
    }
    assert set(volumes) == {"plain", *TRAITS}
    for trait in ("plain", "anisotropic-pixels", "slope-per-slice"):
        assert volumes[trait]["verdict"] == "exact", trait
        assert volumes[trait]["shape"] == [SLICES, 512, 512]
        assert volumes[trait]["max_displacement_mm"] <= 0.001
    assert volumes["plain"]["dtype"] == "int16"
    assert volumes["slope-per-slice"]["dtype"] == "float32"
    for trait in ("missing-slice", "slice-twice", "gantry-tilt"):
        assert volumes[trait]["verdict"] == "refused", trait
        assert volumes[trait]["error"]
    tensors = [each for each in found["found"] if each["job"] == "tensor"]
    assert [each["shape"][1:] for each in tensors] == [[9, 112, 112]]
    assert all(goal["met"] for goal in found["goals"])


def test_compressed_pixels_are_exact_too() -> None:
    syntaxes = ["jpeg-ls", "rle"]
    found = _bench("--json", "--no-traits", "--syntaxes", ",".join(syntaxes))
    volumes = [each for each in found["found"] if each["job"] == "volume"]
    assert sorted(each["syntax"] for each in volumes) == syntaxes
    assert {each["verdict"] for each in volumes} == {"exact"}
    assert found["ratios"] == []


@pytest.mark.peer
def test_a_report_is_made_beside_a_bare_loop(tmp_path: Path) -> None:
    names = readers_of(Job.REPORT, peers_too=True)
    plan = Plan(
        readers={Job.REPORT: names, Job.COLD_REPORT: names},
        slices=(SLICES,),
        syntaxes=(PhantomSyntax.EXPLICIT,),
        rounds=1,
        trait_slices=0,
        folder=tmp_path,
    )
    measured = measure(plan, lambda _: None)
    assert [run.reader for run in measured.runs] == [*names, *names]
    for run in measured.runs:
        assert not run.timed.error
        # Of a process that was started for it, imports count.
        is_cold = run.case.job is Job.COLD_REPORT
        assert (run.timed.cpu_s == run.timed.cpu_since_start_s) is is_cold
    for found in measured.found:
        assert found.error == ""
        assert found.answer["outcome"] in {"SUSPECTED", "NOT_SUSPECTED"}
        assert found.answer["report_bytes"] > 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--syntaxes", "png"), ("--slices", "29")])
def test_what_cannot_be_read_is_wrong_usage(arguments: tuple[str, str]) -> None:
    answer = CliRunner().invoke(app, ["bench", "preprocess", *arguments])
    assert answer.exit_code == 2
