"""INT8 beside FP32 on whole test sets: ``python -m tools.quantise.compare --radiographs DATA``.

The packages that we ship are quantised as ``edge-triage models quantise`` does it, in each way that
it knows, and every model answers the same cases. Nothing is written but drawn phantoms.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from engines.backends import open_engine
from engines.contract import Backend, EngineOptions
from tools.bench.machine import describe_machine
from tools.console import JsonOption, explained_errors, out, print_json
from tools.paediatric_cxr.errors import DataSetError
from tools.quantise.comparing import Change, Merit, answers_of, change_of, merit_of
from tools.quantise.labelled import LabelledSet, phantom_set, radiograph_set
from tools.quantise.making import MOST_CALIBRATION_ITEMS, Recipe, open_made, quantise_package
from tools.quantise.methods import Method
from tools.quantise.tensors import thinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantising:
    """One way of making the model, and what it does to it."""

    method: Method
    calibration: str
    items: int
    change: Change
    golden_flips: int
    """Golden items and golden studies: what ``models quantise`` refuses to write."""
    rounding: float
    """How far two engines are apart that run the same Q/DQ model."""
    size_ratio: float
    processor_time_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model on the test set of its package."""

    package: str
    merit: Merit
    int8: Quantising | None = None
    """None: the model of the package, in FP32."""


ITEMS_OF_A_FILE = 32
"""A file of calibration tensors has a bound; so many are a tenth of it."""

_COLUMNS = (
    *("model", "flips", "largest, mean change of the logit", "AUC", "sensitivity", "specificity"),
    *("golden flips", "engines apart", "size", "processor time"),
)

app = typer.Typer()


@app.command()
def main(
    *,
    radiographs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the radiographs' data set (tools/paediatric_cxr/dataset.py).",
            file_okay=False,
            exists=True,
        ),
    ] = None,
    phantoms: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps drawn phantoms; missing ones are drawn first."),
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Phantoms of the test.")] = 640,
    processes: Annotated[int, typer.Option(min=1, help="That draw phantoms.")] = 2,
    json: JsonOption = False,
) -> None:
    """Quantise the shipped packages in every way, and compare with FP32 on their test sets."""
    if radiographs is None and phantoms is None:
        raise typer.BadParameter("give --radiographs, --phantoms or both")
    machine = describe_machine()
    rows: list[Row] = []
    with explained_errors():
        if phantoms is not None:
            rows += compare(phantom_set(phantoms, count=count, processes=processes))
        if radiographs is not None:
            rows += compare(_radiographs(radiographs))
    if json:
        print_json({"machine": asdict(machine), "rows": [*map(asdict, rows)]})
    else:
        _show(rows)


def compare(labelled: LabelledSet) -> Iterator[Row]:
    """Answers a test set with the package's model, then with each that is made of it.

    Raises:
        PackageError: The model cannot be quantised.
        EngineError: A model does not run.
    """
    package = labelled.package
    name, manifest = package.manifest.name, package.manifest
    with open_engine(Backend.ONNXRUNTIME, package.model, EngineOptions()) as engine:
        before = answers_of(engine, manifest, labelled.cases())
    yield Row(package=name, merit=merit_of(before))
    with tempfile.TemporaryDirectory(prefix="edge-triage-compare-") as folder:
        items = thinned(labelled.calibration, MOST_CALIBRATION_ITEMS)
        for start in range(0, len(items), ITEMS_OF_A_FILE):
            named: dict[str, Any] = {manifest.input.name: items[start : start + ITEMS_OF_A_FILE]}
            np.savez(Path(folder) / f"{start:06d}.npz", **named)
        sources = (("golden", None), ("calibration set", Path(folder)))
        for (source, tensors), method in product(sources, Method):
            made = quantise_package(package, Recipe(method=method, tensors=tensors))
            with open_made(made.quantised.model) as engine:
                after = answers_of(engine, manifest, labelled.cases())
            effect = made.effect
            yield Row(
                package=name,
                merit=merit_of(after),
                int8=Quantising(
                    method=method,
                    calibration=source,
                    items=effect.calibration_items,
                    change=change_of(before, after),
                    golden_flips=effect.flips,
                    rounding=effect.rounding,
                    size_ratio=effect.bytes_after / effect.bytes_before,
                    processor_time_ratio=effect.cost,
                ),
            )


def _radiographs(folder: Path) -> LabelledSet:
    try:
        return radiograph_set(folder)
    except DataSetError as error:
        raise typer.BadParameter(str(error)) from error


def _show(rows: list[Row]) -> None:
    """As tables in Markdown, one for each package."""
    for name in dict.fromkeys(row.package for row in rows):
        of_package = [row for row in rows if row.package == name]
        lines = [_COLUMNS, ("---",) * len(_COLUMNS), *map(_cells, of_package)]
        _tell(f"{name}, {of_package[0].merit.cases} cases", "")
        _tell(*(f"| {' | '.join(cells)} |" for cells in lines), "")


def _tell(*lines: str) -> None:
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def _cells(row: Row) -> tuple[str, ...]:
    merit = row.merit
    figures = tuple(f"{each:.3f}" for each in (merit.auc, merit.sensitivity, merit.specificity))
    if row.int8 is None:
        return ("FP32", "", "", *figures, "", "", "", "")
    made = row.int8
    return (
        f"{made.method.value}, {made.items} items ({made.calibration})",
        str(made.change.flips),
        f"{made.change.largest:.2f}, {made.change.mean:.2f}",
        *figures,
        str(made.golden_flips),
        f"{made.rounding:.2f}",
        f"{made.size_ratio:.2f}",
        f"{made.processor_time_ratio:.2f}",
    )


if __name__ == "__main__":
    app()
