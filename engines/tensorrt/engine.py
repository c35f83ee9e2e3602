"""TensorRT and TensorRT-RTX: an engine that this device built, on its own GPU.

A plan is found by its key in the store, which admits only what this device sealed; a plan that the
library does not take any more is put aside, and built again. Whether its numbers are right is not
asked here: who opens an engine proves it, by ``plan`` and ``plans``, before it looks at studies.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from math import prod
from typing import Any, Protocol

import structlog
from numpy.typing import NDArray

from engines.checksums import MAX_FILE_BYTES, VerifiedFile
from engines.contract import (
    AcceleratorOptions,
    Backend,
    CudaLibrary,
    Engine,
    EngineDescription,
    EngineMetadata,
    EngineOptions,
)
from engines.device.contract import Device, DeviceInfo
from engines.device.opening import open_device
from engines.errors import (
    DeviceError,
    DeviceUnavailableError,
    EngineError,
    EngineLoadError,
    EngineNotBuiltError,
    EngineStateError,
    EngineUnavailableError,
    ModelFileError,
    PlanRejectedError,
    PlanStoreError,
    TensorMismatchError,
)
from engines.plans.budget import workspace_bytes
from engines.plans.key import QUANTISED_FLAG, PlanKey
from engines.plans.store import PlanStore, StoredPlan
from engines.quantised import is_quantised
from engines.tensorrt.building import BuildProgress, BuildRequest, build_plan, planned_flags
from engines.tensorrt.layers import EngineLayer
from engines.tensorrt.library import TensorRtLibrary, least_driver, load_library
from engines.tensorrt.profiles import MOST_SLICES, Profile, profiles_between
from engines.tensorrt.runtime_cache import KeptKernels
from engines.tensorrt.session import SLOTS, Run, Session, StagedInput

_log = structlog.get_logger()


class DeviceOpener(Protocol):
    """As ``engines.device.opening.open_device``."""

    def __call__(
        self, libraries: tuple[CudaLibrary, ...], index: int, /, *, least_version: int
    ) -> Device:
        """Returns a device that is not entered."""
        ...


class TensorRtEngine(Engine):
    """Runs a model as a plan that was built here."""

    def __init__(
        self,
        model: VerifiedFile,
        options: EngineOptions,
        backend: Backend = Backend.TENSORRT,
        *,
        find_library: Callable[[Backend], TensorRtLibrary] = load_library,
        find_device: DeviceOpener = open_device,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model: Of a package.
            options: With those for an accelerator.
            backend: Which of the two libraries.
            find_library: Gets it.
            find_device: Gets the GPU, with a driver that the library runs on.

        Raises:
            EngineUnavailableError: The options let no GPU be used, or there is none, or its driver
                is too old, or the library is not here.
        """
        super().__init__(check_values=options.check_values)
        if options.accelerator is None:
            raise EngineUnavailableError(
                f"the back end {backend.value!r} keeps engines in a folder of this device: set "
                "one in the options for an accelerator"
            )
        self._model = model
        self._options: AcceleratorOptions = options.accelerator
        # First: a library on a driver that is too old for it may fail only when a plan runs.
        try:
            self._device = find_device(
                self._options.libraries,
                self._options.device_index,
                least_version=least_driver(backend),
            )
        except DeviceUnavailableError as error:
            raise EngineUnavailableError(f"{backend.value} can use no GPU here: {error}") from error
        self._library = find_library(backend)
        self._plans = PlanStore(self._options.folder)
        self._kernels = KeptKernels(self._plans)
        self._closing = ExitStack()
        self._session: Session | None = None
        self._stored: StoredPlan | None = None

    def __enter__(self) -> TensorRtEngine:
        super().__enter__()
        return self

    # ------------------------------------------------------------- what it is

    @property
    def plans(self) -> PlanStore:
        """Where its plan lies, and the proof of it."""
        return self._plans

    @property
    def plan(self) -> StoredPlan:
        """Which plan runs: key, digest and proof; its bytes are not kept.

        Raises:
            EngineStateError: Outside ``with``.
        """
        if self._stored is None:
            raise EngineStateError("an engine works only inside its `with` block")
        return self._stored

    @property
    def plan_key(self) -> PlanKey:
        """Of which key its plan is.

        Raises:
            EngineStateError: Outside ``with``.
        """
        return self.plan.key

    @property
    def device(self) -> Device:
        """On which it runs: whoever stages inputs for ``run_staged`` works on the same.

        Raises:
            EngineStateError: Outside ``with``.
        """
        return self._opened().device

    @property
    def graphs(self) -> int:
        """How many calls are CUDA graphs by now.

        Raises:
            EngineStateError: Outside ``with``.
        """
        return self._opened().graphs

    @property
    def layers(self) -> tuple[EngineLayer, ...]:
        """What it is made of, in order.

        Raises:
            EngineStateError: Outside ``with``.
            EngineLoadError: The library does not tell.
        """
        return self._opened().layers()

    # ------------------------------------------------------------------- runs

    def run_staged(self, inputs: Mapping[str, StagedInput]) -> dict[str, NDArray[Any]]:
        """Runs the model on what lies on the device already; else as ``run``.

        Args:
            inputs: One for each of ``self.inputs``, of its type and a shape that fits. Their values
                are not checked; those of the outputs are.

        Raises:
            EngineStateError: Outside ``with``.
            TensorMismatchError: The inputs are not what the model takes.
            EngineRunError: The back end failed.
            EngineOutputError: The back end's answer is not what the model promises.
        """
        description = self._loaded()
        wanted = {spec.name: spec for spec in description.inputs}
        if sorted(inputs) != sorted(wanted):
            raise TensorMismatchError(
                f"inputs are {sorted(inputs)}; the model takes {sorted(wanted)}"
            )
        self._check_sizes({name: staged.shape for name, staged in inputs.items()})
        for name, staged in inputs.items():
            needed = prod(staged.shape) * wanted[name].element_type.dtype.itemsize
            if staged.buffer.nbytes < needed:
                raise TensorMismatchError(
                    f"input {name!r} of shape {staged.shape} has {needed} bytes; its buffer has "
                    f"{staged.buffer.nbytes}"
                )
        with self._running():
            results = self._opened().run(inputs)
        return self._promised(results)

    def stream(
        self, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """See ``Engine.stream``: while one batch is computed, the next one is copied in."""
        coming = iter(batches)
        under_way: deque[Run] = deque()
        failure: BaseException | None = None
        is_over = False
        while under_way or not is_over:
            if not is_over:
                try:
                    inputs = next(coming)
                    self._check_inputs(inputs, self._loaded().inputs)
                    with self._running():
                        under_way.append(self._opened().begin(inputs, overlaps=True))
                except StopIteration:
                    is_over = True
                # Also what `batches` raises: but what was asked for before is yielded first.
                except Exception as error:  # noqa: BLE001 - raised below
                    failure, is_over = error, True
            if len(under_way) == SLOTS or (is_over and under_way):
                with self._running():
                    results = under_way.popleft().outputs()
                yield self._promised(results)
        if failure is not None:
            raise failure

    def layer_times(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[tuple[str, float], ...]:
        """Runs once, and returns how many milliseconds each layer took, in order.

        Raises:
            EngineStateError: Outside ``with``.
            TensorMismatchError: The inputs are not what the model takes.
            EngineRunError: The back end failed.
        """
        self._check_inputs(inputs, self._loaded().inputs)
        with self._running():
            return self._opened().layer_times(inputs)

    def _check_inputs(self, inputs: Mapping[str, NDArray[Any]], specs: Any) -> None:
        super()._check_inputs(inputs, specs)
        self._check_sizes({name: array.shape for name, array in inputs.items()})

    def _check_sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        session = self._opened()
        if not session.allows(shapes):
            raise TensorMismatchError(
                f"inputs have shapes {dict(shapes)}; this engine was built for "
                f"{session.allowed_text()}"
            )

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self._opened().run(inputs)

    def _opened(self) -> Session:
        if self._session is None:
            raise EngineStateError("an engine works only inside its `with` block")
        return self._session

    # ------------------------------------------------------------------- life

    def _load(self) -> EngineDescription:
        model = self._model.read(MAX_FILE_BYTES)
        device = self._closing.enter_context(self._device)
        key = self._key(device.info, model)
        self._put_suspects_aside(key)
        stored = self._taken(device, self._plans.find(key)) or self._built(device, key, model)
        self._stored = dataclasses.replace(stored, plan=b"")
        session = self._opened()
        try:
            session.warm_up()
        except EngineError:
            self._kernels.put_aside(key, "the plan did not run with it")
            raise
        self._kernels.keep(key, session.compiled_kernels())
        _log.info(
            "engine.opened",
            backend=self._library.backend.value,
            device=device.info.name,
            plan=stored.sha256,
            graphs=session.graphs,
        )
        return EngineDescription(
            metadata=EngineMetadata(
                backend=self._library.backend,
                provider=_provider(key),
                version=self._library.version,
                model_sha256=self._model.sha256,
            ),
            inputs=session.inputs,
            outputs=session.outputs,
            most_items=session.most_items,
        )

    def _free(self) -> None:
        self._session = None
        self._stored = None
        # Youngest first: the session before its device.
        closing, self._closing = self._closing, ExitStack()
        try:
            closing.close()
        # After a failed run the driver refuses everything; the run has said so.
        except DeviceError as error:
            _log.warning("engine.not_freed", reason=str(error))

    def _key(self, info: DeviceInfo, model: bytes) -> PlanKey:
        options = self._options
        quantised = (QUANTISED_FLAG,) if is_quantised(model) else ()
        request = BuildRequest(precision=options.precision, dla_core=options.dla_core)
        return PlanKey(
            onnx_sha256=self._model.sha256,
            backend=self._library.backend,
            library_version=self._library.version,
            compute_capability=info.compute_capability,
            gpu_name=info.name,
            driver_version=info.driver_version,
            cuda_version=f"{info.driver_version // 1000}.{info.driver_version % 1000 // 10}",
            # With the digest of the model, which has the input's shape, all that profiles rest on.
            profiles=f"items<={options.most_items}; slices<={MOST_SLICES}",
            precision=options.precision,
            flags=(*planned_flags(self._library, request), *quantised),
            dla_core=options.dla_core,
        )

    def _put_suspects_aside(self, key: PlanKey) -> None:
        """After a process that ended: first what was compiled for the plan, then the plan itself.

        Either may end the next one too; to do without costs time, no more.
        """
        ended = self._options.processes_ended
        reason = f"opening it ended so many processes in a row: {ended}"
        if ended == 1:
            self._kernels.find(key)
            self._kernels.put_aside(key, reason)
        elif ended:
            self._plans.quarantine(key, reason)

    def _taken(self, device: Device, stored: StoredPlan | None) -> StoredPlan | None:
        """A plan that was there, now loaded; None where the library does not take it any more."""
        if stored is None:
            return None
        try:
            self._open_session(device, stored)
        except PlanRejectedError as error:
            _log.warning("engine.plan_rejected", plan=stored.sha256, reason=str(error))
            self._plans.quarantine(stored.key, str(error))
            return None
        return stored

    def _built(self, device: Device, key: PlanKey, model: bytes) -> StoredPlan:
        if not self._options.may_build:
            raise EngineNotBuiltError(
                "no engine of this model is built on this device, and none may be built now: run "
                "`edge-triage engines build`"
            )
        with self._plans.building(key, on_wait=self._on_wait) as found:
            # What another process has built meanwhile.
            stored = self._taken(device, found)
            if stored is not None:
                return stored
            stored = self._build(device, key, model)
            try:
                self._open_session(device, stored)
            except PlanRejectedError as error:
                self._plans.quarantine(key, str(error))
                raise EngineLoadError(
                    f"{error}; it was built a moment ago: run `edge-triage doctor`"
                ) from error
            return stored

    def _open_session(self, device: Device, stored: StoredPlan) -> None:
        options = self._options
        session = Session(
            self._library,
            device,
            stored.plan,
            memory_bytes=options.memory_bytes,
            dla_core=options.dla_core,
            kernels=self._kernels.find(stored.key),
        )
        self._closing.callback(session.close)
        self._session = session
        if session.kernels_refusal:
            self._kernels.put_aside(stored.key, session.kernels_refusal)

    # --------------------------------------------------------------- building

    def _build(self, device: Device, key: PlanKey, model: bytes) -> StoredPlan:
        options, memory = self._options, device.memory()
        _log.info("engine.building", backend=self._library.backend.value, key=key.digest())
        try:
            request = BuildRequest(
                profiles=_profiles(model, options),
                precision=options.precision,
                workspace_bytes=workspace_bytes(
                    wanted=options.memory_bytes,
                    free=memory.free_bytes,
                    total=memory.total_bytes,
                    is_integrated=device.info.is_integrated,
                ),
                dla_core=options.dla_core,
                timing_cache=self._plans.timing_cache(key),
            )
            with device.current():
                built = build_plan(self._library, model, request, self._on_progress)
        except ModelFileError as error:
            raise EngineLoadError(
                f"{error}; run `edge-triage models verify` on its package"
            ) from error
        stored = self._plans.keep(key, built.plan)
        if built.timing_cache:
            self._keep_times(key, built.timing_cache)
        _log.info(
            "engine.built", plan=stored.sha256, bytes=len(built.plan), on_gpu=built.fallen_back
        )
        return stored

    def _keep_times(self, key: PlanKey, cache: bytes) -> None:
        try:
            self._plans.keep_timing_cache(key, cache)
        # The plan is kept; without the times the next build only takes longer.
        except PlanStoreError as error:
            _log.warning("engine.times_not_kept", reason=str(error))

    def _on_progress(self, progress: BuildProgress) -> bool:
        tell = self._options.on_build
        return tell is None or tell(progress.phase, progress.step, progress.steps)

    def _on_wait(self) -> bool:
        tell = self._options.on_build
        return tell is None or tell("waiting for another process", 1, 0)


def _profiles(model: bytes, options: AcceleratorOptions) -> tuple[Profile, ...]:
    # The worker holds ONNX only while it builds.
    from engines.onnx_checks import read_boundary  # noqa: PLC0415 - see above

    inputs = read_boundary(model).inputs
    if len(inputs) != 1:
        raise EngineLoadError(f"the model has {len(inputs)} inputs; export it with one")
    name, shape = inputs[0].name, inputs[0].shape
    bounds = (options.most_items, *(MOST_SLICES for _ in shape[1:]))
    most = tuple(size if size > 0 else bound for size, bound in zip(shape, bounds, strict=True))
    return profiles_between(name, shape, most, fixed=options.dla_core is not None)


def _provider(key: PlanKey) -> str:
    """What computes, and in which numbers, for reports and people."""
    core = "" if key.dla_core is None else f" DLA {key.dla_core}"
    return f"{key.gpu_name}{core} {key.numbers}"
