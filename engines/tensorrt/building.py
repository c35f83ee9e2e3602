"""Builds a plan from a model: what a device runs, made on that device.

* What the vendor takes although it must not (an empty file, an unknown opset, another domain's
  operator of a known name, numbers that it would silently change, sizes of 0) is refused before it
  sees it.
* Networks are strongly typed and TF32 is off: the engine computes in the numbers that the graph
  says, and what the parity gate compares is what was asked for.
* A refusal says the vendor's first reason and a remedy; that memory was short has its own error.
* Building can be watched and stopped; nothing of it survives but the values that are returned.

Plans are not reproducible byte for byte: never compare or name them by their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from traceback import clear_frames
from typing import TypeAlias

from engines.contract import Precision
from engines.errors import (
    EngineBuildError,
    EngineMemoryError,
    EngineUnavailableError,
    ModelEngineError,
    ModelFileError,
)
from engines.quantised import is_quantised
from engines.tensorrt.interface import (
    Builder,
    BuilderConfig,
    Feature,
    Network,
    Parser,
    ProgressMonitor,
)
from engines.tensorrt.layers import fallen_back
from engines.tensorrt.library import TensorRtLibrary
from engines.tensorrt.messages import Messages
from engines.tensorrt.profiles import Profile, ShapeRange

RECIPE = 1
"""Raised when a model is rewritten, or shapes are laid out, in another way than before: plans that
were built the old way are then built again, and proved again."""

OPTIMIZATION_LEVELS = range(6)

# Of a message: what the vendor's builders say when memory was short. The last one is all that RTX
# says when the system gives it none (seen with 1.7 under a limit of the address space).
_OF_MEMORY = (
    "workspace",
    "out of memory",
    "outofmemory",
    "insufficient memory",
    "memory allocation",
    "allocation failed",
    "failed to allocate",
    "bad_alloc",
    "check(p) failed",
)
_LONGEST_REASON = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What shall be built.

    Attributes:
        profiles: One or more where an input's shape is free; none where all are fixed.
        precision: In which numbers; a model with Q/DQ nodes has INT8 in either.
        workspace_bytes: Of scratch memory that a layer may ask for.
        dla_core: On which DLA; None for the GPU.
        timing_cache: Of an earlier build on this device; empty for none.
        optimization_level: 0 (built fast) to 5 (runs fast).
        targets: GPUs that it is for, such as SM86, where the library can; empty for this one.
    """

    profiles: tuple[Profile, ...] = ()
    precision: Precision = Precision.FP32
    workspace_bytes: int = 1 << 30
    dla_core: int | None = None
    timing_cache: bytes = b""
    optimization_level: int = 3
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workspace_bytes < 1:
            raise ValueError(f"workspace_bytes is {self.workspace_bytes}, less than 1")
        if self.optimization_level not in OPTIMIZATION_LEVELS:
            raise ValueError(f"optimization_level is {self.optimization_level}; choose 0 to 5")
        if self.dla_core is not None and self.dla_core < 0:
            raise ValueError(f"dla_core is {self.dla_core}; the first is 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildProgress:
    """How far a phase is; phases lie in one another.

    Attributes:
        phase: The vendor's name of it.
        parent: Of which phase it is a part; None for the outermost.
        step: Steps done.
        steps: In all.
    """

    phase: str
    parent: str | None
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPlan:
    """What was built.

    Attributes:
        plan: For the library that built it, on this device.
        timing_cache: For the next build; empty where the library keeps none.
        flags: How it was built, as ``planned_flags`` says.
        fallen_back: Layers that run on the GPU although a DLA was asked for.
    """

    plan: bytes
    timing_cache: bytes
    flags: tuple[str, ...]
    fallen_back: tuple[str, ...]


OnProgress: TypeAlias = Callable[[BuildProgress], bool]
"""Called on the building thread; False stops the build."""


def planned_flags(library: TensorRtLibrary, request: BuildRequest) -> tuple[str, ...]:
    """Returns how a request is built, beyond its profiles, precision and DLA: a part of its key."""
    flags = [
        f"recipe={RECIPE}",
        "strongly_typed",
        "no_tf32",
        f"optimization_level={request.optimization_level}",
    ]
    if request.dla_core is not None:
        flags.append("gpu_fallback")
        if Feature.ADJUST_FOR_DLA in library.features:
            flags.append("adjust_for_dla")
    flags += [f"target={target}" for target in request.targets]
    return tuple(flags)


def build_plan(
    library: TensorRtLibrary,
    model: bytes,
    request: BuildRequest,
    on_progress: OnProgress | None = None,
) -> BuiltPlan:
    """Builds a plan; takes seconds to many minutes, without holding up other threads.

    Args:
        library: Which builds it.
        model: A verified ONNX file.
        request: What for.
        on_progress: Told of each step; what it raises stops the build and is raised here.

    Raises:
        ModelFileError: It is no model that a device may run.
        EngineMemoryError: Memory, or the workspace that the request allows, was too little.
        EngineBuildError: The library refused the model or the request, or was told to stop.
        EngineUnavailableError: The library does not work here.
    """
    watch = _Watch(on_progress)
    try:
        content = _prepared(model, request)
    except MemoryError as error:
        raise EngineMemoryError(
            "too little memory is free to read the model; stop what else uses it"
        ) from error
    with library.router.listening() as messages:
        build = _Build(library=library, request=request, watch=watch, messages=messages)
        try:
            return _told(build, content)
        except BaseException as error:
            # The frames of an error hold what was in them: a builder that outlives the device's
            # context cannot give back what it took.
            for each in (error, error.__cause__):
                if each is not None:
                    clear_frames(each.__traceback__)
            raise


def _told(build: _Build, model: bytes) -> BuiltPlan:
    """Foreign exceptions become ours."""
    try:
        return build.run(model)
    except ModelEngineError:
        raise
    except MemoryError as error:
        raise build.refusal("failed to build an engine", "out of memory") from error
    # A native library's exceptions share no base class; all mean that it refused.
    except Exception as error:
        if build.watch.failure is error:
            raise
        reason = f"{type(error).__name__}: {error}"
        raise build.refusal("failed to build an engine", reason) from error


def _prepared(model: bytes, request: BuildRequest) -> bytes:
    # The worker holds ONNX only while it builds.
    from engines.onnx_checks import read_boundary  # noqa: PLC0415 - see above
    from engines.tensorrt.precision import with_precision  # noqa: PLC0415 - too

    for tensor in read_boundary(model).inputs:
        # The vendor would take a double for a float.
        if tensor.dtype != "float32":
            raise ModelFileError(
                f"input {tensor.name!r} of model.onnx is {tensor.dtype}; export it as float32"
            )
    if request.dla_core is not None:
        if request.precision is Precision.FP32 and not is_quantised(model):
            raise EngineBuildError(
                "a DLA computes in FP16 or INT8 only; choose precision fp16, a model with Q/DQ "
                "nodes, or no DLA"
            )
        if not all(profile.is_fixed for profile in request.profiles):
            raise EngineBuildError("a DLA runs one shape only; build it with a fixed batch")
    return with_precision(model, request.precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Build:
    """One build: what it is asked of whom, and what was said meanwhile."""

    library: TensorRtLibrary
    request: BuildRequest
    watch: _Watch
    messages: Messages

    def run(self, model: bytes) -> BuiltPlan:
        """Asks for one thing after the other; the order is the vendor's."""
        builder = self._open_builder()
        # The parser owns the weights: it must outlive the build.
        network, parser = self.parse(builder, model)
        config = builder.create_builder_config()
        self._configure(config)
        self._add_targets(config)
        self._add_profiles(builder, config, network)
        fallen = self._use_dla(builder, config, network)
        self._add_timing_cache(config)
        config.progress_monitor = _monitor(self.library, self.watch)
        plan = builder.build_serialized_network(network, config)
        del parser
        self.watch.check()
        if plan is None or not plan.nbytes:
            raise self.refusal("refused to build an engine of the model")
        return BuiltPlan(
            plan=bytes(plan),
            timing_cache=self._timing_cache(config),
            flags=planned_flags(self.library, self.request),
            fallen_back=fallen,
        )

    def _open_builder(self) -> Builder:
        library = self.library
        try:
            return library.module.Builder(library.logger)
        except (TypeError, RuntimeError) as error:
            reason = self.messages.errors[0] if self.messages.errors else str(error)
            raise EngineUnavailableError(
                f"{library.backend.value} {library.version} makes no builder here "
                f"({reason[:_LONGEST_REASON]}); see that the GPU and its driver work: run "
                "`edge-triage doctor`"
            ) from error

    def parse(self, builder: Builder, model: bytes) -> tuple[Network, Parser]:
        """Lets the vendor read the model; the parser must be kept as long as the network."""
        module, features = self.library.module, self.library.features
        flags = 0
        if Feature.STRONGLY_TYPED_FLAG in features:
            flags = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flags)
        if network is None:
            raise self.refusal("makes no strongly typed network")
        parser = module.OnnxParser(network, self.library.logger)
        if self.request.dla_core is not None and Feature.ADJUST_FOR_DLA in features:
            parser.set_flag(module.OnnxParserFlag.ADJUST_FOR_DLA)
        # An empty file passes the parser.
        if not parser.parse(model) or not network.num_layers:
            raise self.refusal("cannot read the model", _parser_reason(parser))
        return network, parser

    def _configure(self, config: BuilderConfig) -> None:
        module = self.library.module
        config.clear_flag(module.BuilderFlag.TF32)
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, self.request.workspace_bytes)
        config.builder_optimization_level = self.request.optimization_level
        # Names and formats of layers are for `engines bench` and for finding a culprit.
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED

    def _add_targets(self, config: BuilderConfig) -> None:
        targets, library = self.request.targets, self.library
        if not targets:
            return
        if Feature.TARGETS not in library.features:
            raise EngineBuildError(
                f"{library.backend.value} builds for the GPU that is here only; ask for no targets"
            )
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            capability = getattr(library.module.ComputeCapability, target, None)
            if capability is None or not config.set_compute_capability(capability, index):
                raise EngineBuildError(
                    f"{library.backend.value} {library.version} does not build for {target!r}; "
                    "leave the target out to build for this GPU"
                )

    def _add_profiles(self, builder: Builder, config: BuilderConfig, network: Network) -> None:
        inputs = {
            tensor.name: tuple(tensor.shape)
            for tensor in (network.get_input(index) for index in range(network.num_inputs))
        }
        is_free = any(size < 0 for shape in inputs.values() for size in shape)
        if is_free and not self.request.profiles:
            raise EngineBuildError(
                "the model's input has a free axis, and no profile says how long it may be; build "
                "it with the profiles of its package"
            )
        for profile in self.request.profiles:
            check_profile(profile, inputs)
            made = builder.create_optimization_profile()
            for each in profile.ranges:
                made.set_shape(each.name, each.least, each.best, each.most)
            if config.add_optimization_profile(made) < 0:
                raise self.refusal("refused a profile")

    def _use_dla(
        self, builder: Builder, config: BuilderConfig, network: Network
    ) -> tuple[str, ...]:
        core, library = self.request.dla_core, self.library
        if core is None:
            return ()
        # Where there is none, the vendor would build for the GPU without a word.
        if core >= builder.num_DLA_cores:
            raise EngineBuildError(
                f"DLA core {core} was asked for, but {library.backend.value} {library.version} "
                f"finds {builder.num_DLA_cores} here; choose another core, or none to build for "
                "the GPU"
            )
        config.default_device_type = library.module.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(library.module.BuilderFlag.GPU_FALLBACK)
        fallen = fallen_back(config, network)
        if len(fallen) == network.num_layers:
            raise EngineBuildError(
                "the DLA takes no layer of this model; choose no DLA to build for the GPU"
            )
        return fallen

    def _add_timing_cache(self, config: BuilderConfig) -> None:
        if Feature.TIMING_CACHE not in self.library.features:
            return
        # One of another version or GPU is refused; an empty one then takes its place.
        for blob in (self.request.timing_cache, b""):
            cache = config.create_timing_cache(blob)
            if cache is not None and config.set_timing_cache(cache, False):  # noqa: FBT003 - theirs
                return

    def _timing_cache(self, config: BuilderConfig) -> bytes:
        if Feature.TIMING_CACHE not in self.library.features:
            return b""
        cache = config.get_timing_cache()
        return bytes(cache.serialize()) if cache is not None else b""

    def refusal(self, what: str, reason: str = "") -> EngineBuildError | EngineMemoryError:
        """The error for what the vendor said: its first message is the cause, later ones noise."""
        first = self.messages.errors[0] if self.messages.errors else ""
        told = reason or first or "it gave no reason"
        text = (
            f"{self.library.backend.value} {self.library.version} {what}: {told[:_LONGEST_REASON]}"
        )
        if any(word in f"{told} {first}".lower() for word in _OF_MEMORY):
            return EngineMemoryError(
                f"{text}; raise memory_mib in [engine.gpu] of the settings, or stop what else uses "
                "the memory"
            )
        if "cudaerror" in told.lower():
            return EngineBuildError(f"{text}; see that the driver works: run `edge-triage doctor`")
        return EngineBuildError(
            f"{text}; choose another back end or precision, or export the model with other "
            "operators"
        )


def _parser_reason(parser: Parser) -> str:
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    node = f"{error.node_operator()} {error.node_name()!r} " if error.node_operator() else ""
    # The description alone can be "false": the condition that did not hold.
    return f"{node}{error.code()}: {error.desc()}"


def check_profile(profile: Profile, inputs: Mapping[str, tuple[int, ...]]) -> None:
    """Checks that a profile is for these inputs; a size of -1 is free.

    Raises:
        EngineBuildError: It is not.
    """
    names = sorted(each.name for each in profile.ranges)
    if names != sorted(inputs):
        raise EngineBuildError(f"the profile is for {names}, but the model takes {sorted(inputs)}")
    for each in profile.ranges:
        if not _fits(each, inputs[each.name]):
            raise EngineBuildError(
                f"the profile lets input {each.name!r} have shapes from {each.least} to "
                f"{each.most}, but the model takes {inputs[each.name]} (-1: free); package.toml "
                "and model.onnx must agree: run `edge-triage models verify`"
            )


def _fits(each: ShapeRange, shape: tuple[int, ...]) -> bool:
    return len(shape) == len(each.least) and all(
        size < 0 or least == size == most
        for size, least, most in zip(shape, each.least, each.most, strict=True)
    )


class _Watch:
    """Hands steps to whoever asked for them, and remembers that the build shall stop."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._phases: dict[str, tuple[str | None, int]] = {}
        self.is_stopped = False
        self.failure: BaseException | None = None

    def begin(self, phase: str, parent: str | None, steps: int) -> None:
        self._phases[phase] = (parent, steps)
        self.tell(phase, 0)

    def tell(self, phase: str, done: int) -> bool:
        """Returns whether the build goes on."""
        if self._on_progress is not None and not self.is_stopped:
            parent, steps = self._phases.get(phase, (None, done))
            progress = BuildProgress(phase=phase, parent=parent, step=done, steps=steps)
            try:
                self.is_stopped = not self._on_progress(progress)
            # Through the vendor's code nothing can be raised; build_plan raises it afterwards.
            except BaseException as error:  # noqa: BLE001 - see above
                self.failure, self.is_stopped = error, True
        return not self.is_stopped

    def end(self, phase: str) -> None:
        """The vendor does not tell a phase's last step."""
        if phase in self._phases:
            self.tell(phase, self._phases[phase][1])
            del self._phases[phase]

    def check(self) -> None:
        """Raises what the listener raised, or that it stopped the build."""
        if self.failure is not None:
            raise self.failure
        if self.is_stopped:
            raise EngineBuildError("building the engine was stopped, as asked; nothing was kept")


def _monitor(library: TensorRtLibrary, watch: _Watch) -> ProgressMonitor:
    base = library.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]  # known at run time
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            watch.begin(phase, parent, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            return watch.tell(phase, step + 1)

        def phase_finish(self, phase: str) -> None:
            watch.end(phase)

    monitor: ProgressMonitor = Monitor()
    return monitor
