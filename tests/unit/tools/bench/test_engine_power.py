"""Power is read where the kernel shows it, in trees laid out as boards have them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tools.bench.engine.power import PowerWatch, Rail, find_rails

LIMIT_S = 10.0


def write(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n", encoding="ascii")
    return folder


def watts(root: Path) -> dict[str, float | None]:
    return {rail.name: rail.watts() for rail in find_rails(root)}


def test_the_rails_of_an_ina3221_are_voltage_times_current(tmp_path: Path) -> None:
    write(
        tmp_path / "hwmon" / "hwmon1",
        name="ina3221",
        in1_label="VDD_IN",
        in1_input=5000,
        curr1_input=1200,
        in2_label="VDD_CPU_GPU_CV",
        in2_input=5000,
        curr2_input=400,
        in3_input=4900,  # without a current
        curr4_input=10,  # without a voltage
    )
    found = watts(tmp_path)
    assert found == {
        "ina3221 VDD_IN": pytest.approx(6.0),
        "ina3221 VDD_CPU_GPU_CV": pytest.approx(2.0),
    }


def test_a_monitor_that_shows_power_is_read_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "hwmon" / "hwmon0", name="amdgpu", power1_average=31_500_000)
    write(tmp_path / "hwmon" / "hwmon2", power1_input=2_000_000, power1_label="board")
    assert watts(tmp_path) == {
        "amdgpu power1_average": pytest.approx(31.5),
        "hwmon2 board": pytest.approx(2.0),
    }


def test_energy_that_was_counted_becomes_power_from_the_second_look_on(tmp_path: Path) -> None:
    zone = write(tmp_path / "powercap" / "intel-rapl:0", name="package-0", energy_uj=1_000_000)
    (rail,) = find_rails(tmp_path)
    assert rail.name == "package-0"
    assert rail.watts() is None
    write(zone, energy_uj=1_500_000)
    found = rail.watts()
    assert found is not None
    assert found > 0
    write(zone, energy_uj=10)  # the counter started again
    assert rail.watts() is None


def test_a_machine_that_shows_nothing_has_no_rails(tmp_path: Path) -> None:
    write(tmp_path / "hwmon" / "hwmon0", name="coretemp", temp1_input=40_000)
    write(tmp_path / "powercap" / "intel-rapl:0", name="package-0", energy_uj="")
    assert find_rails(tmp_path) == ()
    assert find_rails(tmp_path / "nothing") == ()


def test_a_rail_that_goes_away_is_none_and_no_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "hwmon" / "hwmon0", name="x", power1_input=1)
    (rail,) = find_rails(tmp_path)
    (folder / "power1_input").unlink()
    assert rail.watts() is None


def test_the_mean_of_what_was_seen_is_told_rail_by_rail() -> None:
    seen = threading.Event()
    values = iter([1.0, 3.0])

    def read() -> float | None:
        value = next(values, None)
        if value is None:
            seen.set()
        return value

    with PowerWatch((Rail(name="board", watts=read),)) as watch:
        assert seen.wait(LIMIT_S)
    assert watch.means == {"board": 2.0}


def test_without_rails_nothing_runs() -> None:
    before = threading.active_count()
    with PowerWatch(()) as watch:
        assert threading.active_count() == before
    assert watch.means == {}
