"""Which TensorRT is here, and that nothing of it is touched where it would crash."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from golden.tensorrt_names import BINDINGS, make_stand_ins
from simulators.fake_cuda.building import FakeCuda

from engines.contract import Backend
from engines.device.driver import find_driver
from engines.errors import DeviceUnavailableError, EngineMisuseError
from engines.tensorrt.library import TensorRtLibrary, least_driver, load_library
from engines.tensorrt.messages import MessageRouter

FOLDER_OF_BINDINGS = "EDGE_TRIAGE_TENSORRT_BINDINGS"

# What an attempt in a process of its own says, and whether the vendor's module was touched.
_ATTEMPT = """
import sys
from engines.contract import Backend
from engines.errors import EngineUnavailableError
from engines.tensorrt.library import load_library

backend = Backend(sys.argv[1])
try:
    print(load_library(backend).version)
except EngineUnavailableError as error:
    print(error)
print(any(name.startswith("tensorrt") for name in sys.modules))
"""

_BUILD = """
import sys
from engines.contract import Backend
from engines.errors import EngineUnavailableError
from engines.tensorrt.building import BuildRequest, build_plan
from engines.tensorrt.library import load_library
from simulators.small_models import node, small_model

library = load_library(Backend(sys.argv[1]))
try:
    build_plan(library, small_model([node("Relu", ["x"], ["y"])]), BuildRequest())
except EngineUnavailableError as error:
    print(error)
print(True)
"""

# What opening an engine says, and what is listed for it; not one byte of a plan or model is read.
_OPEN = """
import sys
from pathlib import Path
from engines.available import find_available
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import AcceleratorOptions, Backend, EngineOptions
from engines.errors import EngineUnavailableError
from engines.loading import load_package
from engines.shipped import shipped_packages

backend = Backend(sys.argv[1])
options = EngineOptions(accelerator=AcceleratorOptions(folder=Path("plans")))
try:
    open_engine(backend, VerifiedFile(path=Path("model.onnx"), sha256="0" * 64), options)
except EngineUnavailableError as error:
    print(error)
model = load_package(shipped_packages()["head_ct_phantom"]).model
print(next(each.obstacle for each in find_available(model, options) if each.backend is backend))
print(any(name.startswith("tensorrt") for name in sys.modules))
"""


@pytest.fixture
def driver(fake_cuda: FakeCuda) -> FakeCuda:
    """As far as it is asked before TensorRT is."""
    return fake_cuda


def attempt(
    backend: Backend, environment: dict[str, str], *packages: Path, code: str = _ATTEMPT
) -> tuple[str, bool]:
    """Returns what loading says, and whether the vendor's module was imported."""
    paths = [*map(str, packages), environment.get("PYTHONPATH", ""), *sys.path]
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, backend.value],
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    said, touched = answer.stdout.strip().rsplit("\n", 1)
    return said, touched == "True"


def package(folder: Path, name: str, content: str) -> Path:
    """Writes a module in place of the vendor's."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(content, encoding="utf-8")
    return folder


# ------------------------------------------------------------------------------ is it here


def test_our_modules_load_neither_the_vendors_nor_onnx_before_they_are_needed() -> None:
    code = (
        "import sys, engines.tensorrt.building, engines.tensorrt.library; "
        "print(sorted({'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "[]"


def test_rtx_is_loaded_without_a_gpu_and_once(rtx: TensorRtLibrary) -> None:
    assert rtx.backend is Backend.TENSORRT_RTX
    assert rtx.version
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(load_library, [Backend.TENSORRT_RTX] * 8))
    assert all(each is rtx for each in again)


@pytest.mark.parametrize("backend", [Backend.ONNXRUNTIME, Backend.ONNXRUNTIME_TENSORRT])
def test_another_back_end_is_not_loaded_from_here(backend: Backend) -> None:
    with pytest.raises(EngineMisuseError, match="not run by TensorRT"):
        load_library(backend)


def test_without_a_driver_tensorrt_is_not_even_imported(tmp_path: Path) -> None:
    try:
        find_driver()
    except DeviceUnavailableError:
        pass
    else:
        pytest.skip("a GPU is here")
    crashing = package(tmp_path, "tensorrt", "import os; os.abort()")
    said, touched = attempt(Backend.TENSORRT, dict(os.environ), crashing)
    assert said.startswith("TensorRT needs a GPU and its driver: ")
    assert not touched


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"init": 100}, "does not start"),
        ({"devices": 0}, "TensorRT needs a GPU and its driver: "),
        ({"version": 11080}, "12.0 is needed: update the driver"),
    ],
    ids=["no device", "none visible", "too old"],
)
def test_with_a_driver_that_does_not_serve_tensorrt_is_not_even_imported(
    settings: dict[str, int], reason: str, driver: FakeCuda, tmp_path: Path
) -> None:
    crashing = package(tmp_path, "tensorrt", "import os; os.abort()")
    said, touched = attempt(Backend.TENSORRT, driver.environment(**settings), crashing)
    assert reason in said
    assert not touched


def test_a_driver_of_an_older_cuda_than_the_wheel_is_refused(
    driver: FakeCuda, tmp_path: Path
) -> None:
    crashing = package(tmp_path, "tensorrt", "import os; os.abort()")
    information = tmp_path / "tensorrt_cu13_libs-11.4.0.106.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: tensorrt_cu13_libs\nVersion: 11.4.0.106\n")
    said, touched = attempt(Backend.TENSORRT, driver.environment(version=12080), crashing)
    assert "13.0 is needed: update the driver" in said
    assert not touched


@pytest.mark.parametrize("backend", [Backend.TENSORRT, Backend.TENSORRT_RTX])
def test_an_engine_on_too_old_a_driver_is_refused_before_anything_is_loaded(
    backend: Backend, driver: FakeCuda, tmp_path: Path
) -> None:
    # The list asks both.
    for name in ("tensorrt", "tensorrt_rtx"):
        package(tmp_path, name, "import os; os.abort()")
        information = tmp_path / f"{name}_cu13_libs-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Name: {name}_cu13_libs\nVersion: 1.0\n")
    said, touched = attempt(backend, driver.environment(version=12080), tmp_path, code=_OPEN)
    opened, listed = said.split("\n")
    assert opened.startswith(f"{backend.value} can use no GPU here: ")
    for text in (opened, listed):
        assert "serves CUDA 12.8, and 13.0 is needed: update the driver" in text
    assert not touched


@pytest.mark.parametrize(
    ("distribution", "least"),
    [
        ("tensorrt_cu13", 13000),
        ("tensorrt_cu13_libs", 13000),
        ("tensorrt-cu12-bindings", 12000),
        ("tensorrt_rtx_cu13", 12000),
    ],
)
def test_wheels_say_which_driver_they_need(
    distribution: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert least_driver(Backend.TENSORRT) == least


@pytest.mark.parametrize("backend", [Backend.TENSORRT, Backend.TENSORRT_RTX])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "raise ModuleNotFoundError('No module named tensorrt')",
            "is not installed (No module named tensorrt); install it: ",
        ),
        (
            "raise ImportError('libnvinfer.so.10: cannot open shared object file')",
            "libraries do not load (libnvinfer.so.10: cannot open shared object file); install",
        ),
        ("import ctypes; ctypes.CDLL('libnvinfer.so.10')", "libraries do not load (libnvinfer"),
        ("__version__ = '9.9'", "9.9 lacks Builder, Builder.build_serialized_network"),
    ],
    ids=["absent", "no libraries", "library not loaded", "names missing"],
)
def test_a_module_that_is_not_whole_is_told_with_its_remedy(
    backend: Backend, content: str, reason: str, driver: FakeCuda, tmp_path: Path
) -> None:
    name = backend.value.replace("-", "_")
    said, _ = attempt(backend, driver.environment(), package(tmp_path, name, content))
    assert reason in said
    assert said.startswith(name)
    assert "install" in said


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """Versions of the real bindings, each in a folder in which it is called ``tensorrt``."""
    folder = os.environ.get(FOLDER_OF_BINDINGS)
    if not folder:
        pytest.skip(f"{FOLDER_OF_BINDINGS} names no folder of unpacked bindings of TensorRT")
    root = tmp_path_factory.mktemp("bindings")
    versions = []
    for version in sorted(Path(folder).glob(f"*/{BINDINGS}")):
        place = root / version.parent.name
        place.mkdir()
        (place / "tensorrt").symlink_to(version)
        versions.append((version.parent.name, place))
    return versions


def test_real_bindings_without_their_libraries_are_told_with_the_remedy(
    driver: FakeCuda, bindings: list[tuple[str, Path]]
) -> None:
    for version, place in bindings:
        said, _ = attempt(Backend.TENSORRT, driver.environment(), place)
        assert "its libraries do not load (libnv" in said, version
        assert "python3-libnvinfer" in said, version


def test_real_bindings_whose_library_makes_no_builder_are_told_with_the_remedy(
    driver: FakeCuda, bindings: list[tuple[str, Path]], tmp_path: Path
) -> None:
    for version, place in bindings:
        stand_ins = tmp_path / version
        stand_ins.mkdir()
        make_stand_ins(stand_ins, version.split(".")[0])
        environment = driver.environment()
        environment["LD_LIBRARY_PATH"] += f":{stand_ins}"
        said, _ = attempt(Backend.TENSORRT, environment, place)
        assert version.startswith(said)
        said, _ = attempt(Backend.TENSORRT, environment, place, code=_BUILD)
        assert "makes no builder here" in said, version
        assert "`edge-triage doctor`" in said, version


# ------------------------------------------------------------------------ who hears what


def test_a_listener_hears_its_own_thread() -> None:
    router = MessageRouter()
    both_listen = threading.Barrier(2, timeout=30)

    def listen(text: str) -> tuple[str, ...]:
        with router.listening() as messages:
            both_listen.wait()
            router.tell(text)
            both_listen.wait()
            return messages.errors

    with ThreadPoolExecutor(2) as pool:
        heard = list(pool.map(listen, ["first", "second"]))
    assert heard == [("first",), ("second",)]


def test_the_inner_of_two_listeners_hears() -> None:
    router = MessageRouter()
    with router.listening() as outer:
        with router.listening() as inner:
            router.tell("while loading")
        router.tell("while building")
    assert inner.errors == ("while loading",)
    assert outer.errors == ("while building",)


def test_what_a_thread_of_the_library_says_is_heard_by_all() -> None:
    router = MessageRouter()
    with router.listening() as messages:
        speaker = threading.Thread(target=router.tell, args=["of a thread of its own"])
        speaker.start()
        speaker.join()
    assert messages.errors == ("of a thread of its own",)


def test_what_is_said_to_nobody_is_gone() -> None:
    router = MessageRouter()
    router.tell("to nobody")
    with router.listening() as messages:
        pass
    router.tell("afterwards")
    assert messages.errors == ()


def test_a_flood_of_errors_is_bounded() -> None:
    router = MessageRouter()
    with router.listening() as messages:
        for index in range(1000):
            router.tell(f"{index} " + "long\n" * 10_000)
    assert len(messages.errors) == 16
    assert messages.errors[0].startswith("0 long long")
    assert max(len(each) for each in messages.errors) <= 2000
