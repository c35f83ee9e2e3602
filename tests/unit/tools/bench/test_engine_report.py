"""The figures of the engine benchmark, from runs whose times are known."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from engines.contract import Backend
from tools.bench.engine.answers import Layer, Ready, Timed
from tools.bench.engine.job import Job
from tools.bench.engine.measure import Measured, Plan, Run
from tools.bench.engine.names import PEERS, RunnerName
from tools.bench.engine.report import cells_of, ratios_of, report, show, show_machine
from tools.bench.machine import Machine

OURS, BARE, TENSORRT, CUDA = (
    RunnerName.ONNXRUNTIME,
    RunnerName.BARE,
    RunnerName.TENSORRT,
    RunnerName.ONNXRUNTIME_CUDA,
)
JOB = Job(package="p", plans="e", threads=1, precision="fp32", gpu=0, memory_bytes=1, most_items=32)
PLAN = Plan(
    job=JOB, runners=(OURS, BARE), batches=(1, 8), rounds=2, seconds=1.0, least_runs=1, layers=True
)
READY = Ready(
    software="1.31 CPU",
    load_s=0.1,
    first_s=0.002,
    batch=None,
    max_absolute=1e-6,
    copied_bytes_per_item=None,
)
MACHINE = Machine(
    cpu="a processor",
    cores=2,
    memory_mb=1,
    kernel="6",
    python="3.11",
    onnxruntime="1.31",
    release="0.1",
    load_average=(0.0, 0.0, 0.0),
)


def run(
    runner: RunnerName,
    latencies_us: tuple[int, ...],
    *,
    batch: int = 1,
    number: int = 0,
    cpu_s: float = 0.001,
    streamed: float | None = None,
    watts: dict[str, float] | None = None,
) -> Run:
    timed = Timed(
        latencies_us=latencies_us,
        wall_s=sum(latencies_us) / 1e6,
        cpu_s=cpu_s,
        streamed_items_per_s=streamed,
    )
    return Run(runner=runner, batch=batch, round=number, timed=timed, watts=watts or {})


def test_percentiles_are_measured_values_over_all_rounds() -> None:
    (cell,) = cells_of([run(OURS, (1000, 3000)), run(OURS, (2000, 9000), number=1)])
    assert cell.latency_us == {
        "p50": 2000,
        "p95": 9000,
        "p99": 9000,
        "lowest": 1000,
        "highest": 9000,
    }
    assert cell.runs == 4


def test_throughput_counts_items_and_processor_time_is_per_item() -> None:
    (cell,) = cells_of([run(OURS, (4000,) * 5, batch=8, cpu_s=0.04)])
    assert cell.items_per_s == pytest.approx(2000)
    assert cell.cpu_ms_per_item == pytest.approx(1.0)
    assert cell.streamed_items_per_s is None


def test_what_overlaps_and_what_the_board_takes_are_summed_up_over_rounds() -> None:
    runs = [
        run(TENSORRT, (1,), streamed=100.0, watts={"VDD_IN": 6.0}),
        run(TENSORRT, (1,), number=1, streamed=300.0, watts={"VDD_IN": 8.0, "late": 1.0}),
    ]
    (cell,) = cells_of(runs)
    assert cell.streamed_items_per_s == 200
    assert cell.watts == {"VDD_IN": 7.0, "late": 1.0}


def test_ratios_compare_within_a_round_and_know_their_goals() -> None:
    runs = [
        run(OURS, (1050,), cpu_s=0.002),
        run(BARE, (1000,), cpu_s=0.001),
        run(OURS, (2080,), number=1, cpu_s=0.002),
        run(BARE, (2000,), number=1, cpu_s=0.001),
    ]
    (ratio,) = ratios_of(runs)
    assert (ratio.ours, ratio.peer) == (OURS, BARE)
    assert ratio.latency == pytest.approx(1.045)
    assert ratio.cpu == pytest.approx(2.0)
    assert ratio.is_met is True
    (worse,) = ratios_of([run(OURS, (1100,)), run(BARE, (1000,))])
    assert worse.is_met is False


def test_on_a_gpu_ours_stands_beside_the_librarys_own_provider_and_no_processor() -> None:
    runs = [run(name, (1000,)) for name in (OURS, BARE, TENSORRT, CUDA, RunnerName.TORCH_CUDA)]
    pairs = {(ratio.ours, ratio.peer): ratio.limit for ratio in ratios_of(runs)}
    assert pairs == {
        (OURS, BARE): 1.05,
        (TENSORRT, CUDA): 0.7,
        (TENSORRT, RunnerName.TORCH_CUDA): None,
        (CUDA, RunnerName.TORCH_CUDA): None,
    }


@pytest.fixture
def measured() -> Measured:
    return Measured(
        ready={OURS: READY, BARE: READY},
        refused={TENSORRT: "no [driver] here"},
        runs=(run(OURS, (1000,), watts={"VDD_IN": 6.0}), run(BARE, (1000,))),
        peak_rss_bytes={OURS: 100_000_000, BARE: 90_000_000},
        layers={
            BARE: tuple(
                Layer(name=f"layer {n}", operator="Conv", share=1 / 14, median_us=10.0)
                for n in range(14)
            )
        },
    )


def test_the_report_is_json_and_says_who_was_left_out_and_why(measured: Measured) -> None:
    found = json.loads(json.dumps(report(PLAN, measured, "head 1.0.0")))
    assert found["model"] == "head 1.0.0"
    assert found["left_out"] == {"tensorrt": "no [driver] here"}
    assert found["runners"]["onnxruntime"]["peak_rss_mb"] == 100.0
    assert found["ratios"][0]["met"] is True
    assert len(found["layers"]["bare-onnxruntime"]) == 14


def test_the_tables_say_the_same(measured: Measured) -> None:
    text = io.StringIO()
    console = Console(file=text, width=120)
    show_machine(console, MACHINE)
    show(console, PLAN, measured, "head 1.0.0")
    shown = " ".join(text.getvalue().split())
    for words in (
        "2 cores of a processor",
        "head 1.0.0",
        "left out: tensorrt: no [driver] here",
        "met onnxruntime over bare-onnxruntime, batch 1",
        "2 others",
        "VDD_IN 6.0",
    ):
        assert words in shown, words


def test_a_job_goes_through_a_command_line_and_becomes_options() -> None:
    assert Job.parse(JOB.text()) == JOB
    accelerator = JOB.options().accelerator
    assert accelerator is not None
    assert (str(accelerator.folder), accelerator.most_items) == ("e", 32)


def test_every_back_end_is_a_runner_of_ours_and_every_other_runner_a_peer() -> None:
    assert [name.backend for name in RunnerName if name.backend] == list(Backend)
    assert set(PEERS) == {name for name in RunnerName if name.backend is None}
    assert all(name.words for name in RunnerName)
