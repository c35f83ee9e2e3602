"""``python -m tools.gpu_check``: every check that needs a GPU, and a short table last."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.gpu_check.rows import Verdict, short_table, summary, table
from tools.gpu_check.running import run_steps
from tools.gpu_check.steps import STEPS, run_step

STEP_LIMIT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen steps.

    Returns:
        0 when nothing failed, also where there is no GPU; 1 when something did, or when one was
        asked for and none is here.
    """
    chosen = _parser().parse_args(arguments)
    if chosen.step:
        return run_step(chosen.step, chosen.out)
    if chosen.list:
        for step in STEPS:
            print(f"{step.name:10} {step.about}")
        return 0
    wanted = chosen.steps.split(",") if chosen.steps else [step.name for step in STEPS]
    unknown = set(wanted) - {step.name for step in STEPS}
    if unknown:
        print(f"there is no step {', '.join(sorted(unknown))}; see --list", file=sys.stderr)
        return 2
    return _check(wanted, chosen.out, chosen.limit_s, needs_gpu=chosen.need_gpu)


def _check(wanted: Sequence[str], out: Path, limit_s: float, *, needs_gpu: bool) -> int:
    steps = [step for step in STEPS if step.name in wanted]
    rows = run_steps(steps, out, limit_s=limit_s, say=lambda text: print(text, flush=True))
    failed = [row for row in rows if row.verdict is Verdict.FAILED]
    has_gpu = not any(row.verdict is Verdict.NOT_HERE and row.subject == "GPU" for row in rows)
    told = summary(rows)
    if not has_gpu:
        told += "\nThere is no usable GPU here: nothing of this was run on one."
    heading = time.strftime("GPU check of %Y-%m-%d %H:%M UTC", time.gmtime())
    report = f"{heading}\n\n{table(rows)}\n\n{told}\n"
    (out / "report.md").write_text(report, encoding="utf-8")
    print(f"\n{short_table(rows)}\n\n{told}")
    return 1 if failed or (needs_gpu and not has_gpu) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu_check",
        description="Checks and times everything that needs a GPU; prints a table last.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(".make/gpu-check"),
        help="rows, logs and report.md go here; default .make/gpu-check",
    )
    parser.add_argument("--steps", default="", help="only these, with commas; see --list")
    parser.add_argument("--list", action="store_true", help="list the steps and end")
    parser.add_argument(
        "--limit-s", type=float, default=STEP_LIMIT_S, help="seconds that one step may take"
    )
    parser.add_argument(
        "--need-gpu", action="store_true", help="exit 1 where there is no usable GPU"
    )
    # How a step is started; not for people.
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    return parser
