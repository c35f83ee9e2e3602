from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engines.card import Evaluation
from engines.loading import load_package
from tools.head_ct.build_package import EXAMPLES_FILE, write_page
from tools.head_ct.page import figures_tables

PAGE = Path(__file__).parents[4] / "docs" / "models" / "head_ct.md"


@pytest.fixture(scope="module")
def evaluation(shipped: Path) -> Evaluation:
    return load_package(shipped).evaluation


def test_each_group_has_one_table(evaluation: Evaluation) -> None:
    heads = [line for line in figures_tables(evaluation).splitlines() if "95 % interval" in line]
    titles = {item.group or "All phantoms" for item in evaluation.estimates}

    assert heads[0].startswith("| All phantoms |")
    assert len(heads) == len(titles)


def test_the_page_and_its_pictures_are_renewed_together(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    page = tmp_path / PAGE.name
    shutil.copyfile(PAGE, page)
    write_page(page, evaluation)

    assert page.read_text("utf-8") == PAGE.read_text("utf-8")
    drawn = {path.name for path in page.with_suffix("").iterdir()}
    assert drawn == {path.name for path in PAGE.with_suffix("").iterdir()}
    assert EXAMPLES_FILE in drawn
