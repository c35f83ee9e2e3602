"""A short run of every fuzz target, and the corpus on every Python; `make fuzz` runs them long."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fuzz import fuzz_data_set, fuzz_pdu
from fuzz.fuzzing import Target, has_atheris
from fuzz.make_corpus import CORPUS, seeds
from simulators.hand_driven_node import HandDrivenNode
from simulators.rogue_modality import C_STORE_RSP, make_instance, us
from simulators.upper_layer_model import whole_data_sets

_FOLDER = Path(__file__).parent
# What takes about ten seconds on a slow machine.
_RUNS = {"pdu": 800, "data_set": 20_000}


@pytest.fixture(params=["pdu", "data_set"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Target]]:
    made: dict[str, Callable[[], Target]] = {
        "pdu": lambda: fuzz_pdu.Target(tmp_path),
        "data_set": fuzz_data_set.Target,
    }
    found = made[request.param]()
    yield request.param, found
    found.close()


def test_corpus_keeps_every_invariant(target: tuple[str, Target]) -> None:
    name, check = target
    files = sorted((CORPUS / name).iterdir())
    assert files
    for path in files:
        check(path.read_bytes())


def test_corpus_holds_the_seeds_that_its_generator_makes() -> None:
    """`python tests/fuzz/make_corpus.py` writes them anew."""
    for name, content in seeds().items():
        assert (CORPUS / name).read_bytes() == content, name


@pytest.mark.skipif(not has_atheris(), reason="atheris has no wheel for this Python")
@pytest.mark.parametrize("name", _RUNS)
def test_fuzzer_finds_nothing_in_a_short_run(name: str, tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    run = subprocess.run(
        [
            sys.executable,
            _FOLDER / f"fuzz_{name}.py",
            found,
            CORPUS / name,
            f"-runs={_RUNS[name]}",
            "-max_len=4096",
            "-len_control=0",
            "-timeout=30",
            "-rss_limit_mb=1024",
            f"-artifact_prefix={tmp_path}/",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert f"Done {_RUNS[name]} runs" in run.stderr


# ---------------------------------------------------------------- the fuzzer sees what it should


@pytest.mark.parametrize("fast_path", [False, True])
def test_hand_driven_node_stores_and_answers_as_a_node_does(
    tmp_path: Path, fast_path: bool
) -> None:
    image, other = make_instance(1), make_instance(2)
    stream = b"".join(image.message(size=300) + other.message(message_id=2))
    with closing(HandDrivenNode(folder=tmp_path, fast_path=fast_path)) as node:
        outcome = node.receive(stream)
    assert sorted(outcome.published) == sorted([image.data_set, other.data_set])
    assert outcome.answered.count(us(C_STORE_RSP)) == 2
    assert outcome.has_ended
    assert whole_data_sets(stream) == [image.data_set, other.data_set]


def test_model_takes_no_data_set_that_is_mixed_or_cut_off() -> None:
    image, other = make_instance(1), make_instance(2)
    first, *rest = image.message(size=500)
    assert whole_data_sets(first + b"".join(rest)[:-1]) == []
    assert whole_data_sets(first + rest[0] + b"".join(other.message())) == []
    assert whole_data_sets(b"".join(other.message(context=3)[:1]) + b"".join(rest)) == []
    assert whole_data_sets(b"".join(rest)) == []
