"""``edge-triage models new``: a package folder around an ONNX file.

The file tells its layout and sizes; the rest is asked, or read from a file of answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tools.console import JsonOption, err, explained_errors, out, print_json

if TYPE_CHECKING:
    from tools.models.scaffold import Scaffold


def new(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    *,
    target: Annotated[Path, typer.Option("--out", help="Folder to make; it must not exist.")],
    name: Annotated[str, typer.Option(help="Name of the package; by default the file's.")] = "",
    answers: Annotated[
        Path | None,
        typer.Option(help="Answers (TOML), for scripts: nothing is asked, defaults count."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(help="Golden inputs of your own (.npz, named as the model's input)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides golden inputs that are drawn.")] = 0,
    json: JsonOption = False,
) -> None:
    """Make a package folder around an ONNX file; asks for what the file cannot tell."""
    # Takes half a second to load; only here.
    from tools.models.questions import ask_in_terminal  # noqa: PLC0415
    from tools.models.scaffold import read_answers, scaffold  # noqa: PLC0415

    with explained_errors():
        given = {} if answers is None else read_answers(answers)
        made = scaffold(
            model,
            target,
            name=name,
            answers=given,
            ask=ask_in_terminal if answers is None else None,
            inputs=inputs,
            seed=seed,
            tell=lambda line: err.print(line, markup=False, soft_wrap=True),
        )
    if json:
        print_json(_report(made))
    else:
        _print(made)


def _report(made: Scaffold) -> dict[str, object]:
    return {
        "folder": str(made.folder),
        "name": made.package.name,
        "findings": {
            finding.key: finding.operating_point.threshold for finding in made.package.findings
        },
        "operating_points_to_set": list(made.automatic),
        "one_sided": list(made.one_sided),
        "card_to_fill": list(made.unfilled),
    }


def _print(made: Scaffold) -> None:
    lines = [f"{made.folder}: {made.package.name} {made.package.version} is laid out. Next:"]
    if made.automatic:
        lines.append(
            f"- package.toml: set calibration and operating point of {', '.join(made.automatic)}; "
            "until then the threshold lies amid the golden outputs"
        )
    if made.one_sided:
        lines.append(
            f"- golden inputs lie all on one side of the operating point of "
            f"{', '.join(made.one_sided)}: make the folder again with --inputs"
        )
    if made.unfilled:
        lines.append(f"- card.toml: fill in {len(made.unfilled)} fields that are empty")
    if not made.package.demonstration:
        lines.append("- golden/studies: add a suspected study, and one that is not")
    lines += [
        "- edge-triage models evaluate: writes evaluation.json from the scores of your test set",
        "- edge-triage models seal, then edge-triage models verify",
    ]
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
