"""Asks a plan to run: first as it comes, and from the second time on as a CUDA graph.

A graph is tied to the shapes and addresses that it was captured with, and to the context that it
came from: whoever changes that context afterwards, changes what the graph does in ways that the
vendor leaves open. So each graph has a context of its own, which is never touched again, and one
more context serves all that is not captured. All share one piece of memory for what lies between
the layers: they run in one stream, one after the other.

Graphs are an optimisation: where one cannot be had, the same work is asked for without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from engines.device.contract import Buffer, Device, Graph, Stream
from engines.errors import (
    DeviceError,
    EngineError,
    EngineLoadError,
    EngineRunError,
    EngineStateError,
)
from engines.tensorrt.interface import Context, Feature
from engines.tensorrt.loading import LoadedPlan, reason_of, refusal

_log = structlog.get_logger()

Shape: TypeAlias = tuple[int, ...]

MOST_GRAPHS = 16
"""Each holds a context; a model is asked for few shapes, again and again."""
_MOST_REMEMBERED = 256
"""Calls that came once."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a run is asked for: two equal ones can share a graph."""

    shapes: tuple[tuple[str, Shape], ...]
    """Of all inputs."""
    addresses: tuple[tuple[str, int], ...]
    """Of all inputs and outputs."""
    has_copies: bool
    """Whether copies from and to the host are a part of it."""


Work: TypeAlias = Callable[[Callable[[], None]], None]
"""Asks the stream for all of a call; it is given what asks for the plan itself."""


class PlanContext:
    """One of the vendor's contexts, and what it was last told."""

    def __init__(self, plan: LoadedPlan, stream: Stream) -> None:
        """Opens it; ``use`` gives it memory before it runs.

        Raises:
            EngineMemoryError: There is too little memory.
            EngineLoadError: The library refused.
        """
        self._plan = plan
        self._stream = stream
        self._profile: int | None = None
        self._shapes: tuple[tuple[str, Shape], ...] = ()
        self._addresses: tuple[tuple[str, int], ...] = ()
        self._context: Context | None = None
        library = plan.library
        strategy = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        self._config = plan.context_config()
        with library.router.listening() as messages:
            self._context = plan.engine.create_execution_context(
                strategy if self._config is None else self._config
            )
        if self._context is None:
            self.close()
            raise refusal(
                library,
                "makes no context for the plan",
                messages,
                otherwise=EngineLoadError,
                remedy="run `edge-triage doctor`",
            )

    def use(self, scratch: Buffer | None) -> None:
        """Give it memory for what lies between the layers."""
        if scratch is not None:
            self._opened().set_device_memory(scratch.address, scratch.nbytes)

    def close(self) -> None:
        """Drop the vendor's; its graph was freed before."""
        self._context = None
        self._config = None

    def arrange(self, shapes: tuple[tuple[str, Shape], ...]) -> None:
        """Set the shapes of all inputs.

        Raises:
            EngineRunError: They are none that the engine was built for.
        """
        if shapes == self._shapes:
            return
        profile = self._plan.profile_for(shapes)
        if profile is None:
            raise EngineRunError(f"the engine was not built for inputs of {dict(shapes)}")
        self._shapes = ()
        with self._plan.library.router.listening() as messages:
            if not self._is_told(profile, shapes):
                raise EngineRunError(
                    f"the library refused inputs of {dict(shapes)}: {reason_of(messages)}"
                )
        self._profile, self._shapes = profile, shapes

    def shape_of(self, name: str) -> Shape:
        """Return the shape that an output has with the inputs that are set."""
        return tuple(int(size) for size in self._opened().get_tensor_shape(name))

    def place(self, addresses: tuple[tuple[str, int], ...]) -> None:
        """Set where inputs and outputs lie."""
        if addresses == self._addresses:
            return
        self._addresses = ()
        with self._plan.library.router.listening() as messages:
            if not all(self._opened().set_tensor_address(*each) for each in addresses):
                raise EngineRunError(f"the library refused an address: {reason_of(messages)}")
        self._addresses = addresses

    def enqueue(self) -> None:
        """Ask the stream to run the plan.

        Raises:
            EngineRunError: The library refused.
        """
        with self._plan.library.router.listening() as messages:
            if not self._opened().execute_async_v3(self._stream.pointer):
                raise EngineRunError(
                    f"the library refused to run: {reason_of(messages) or 'it gave no reason'}"
                )

    def is_capturable(self) -> bool:
        """Whether it can become a graph, as far as the library says."""
        if Feature.STREAM_CAPTURABLE not in self._plan.library.features:
            return True
        return bool(self._opened().is_stream_capturable(self._stream.pointer))

    def profile_layers(self, profiler: object) -> None:
        """Let the library tell how long each layer takes from now on; None: no more."""
        self._opened().profiler = profiler

    def _is_told(self, profile: int, shapes: tuple[tuple[str, Shape], ...]) -> bool:
        context = self._opened()
        if profile != self._profile:
            pointer = self._stream.pointer
            if not context.set_optimization_profile_async(profile, pointer):
                return False
        is_set = all(context.set_input_shape(*each) for each in shapes)
        return is_set and not context.infer_shapes()

    def _opened(self) -> Context:
        if self._context is None:
            raise EngineStateError("this context is closed")
        return self._context


@dataclass(frozen=True, slots=True)
class _Captured:
    context: PlanContext
    graph: Graph


class Executor:
    """Runs one plan in one stream."""

    def __init__(
        self, plan: LoadedPlan, device: Device, stream: Stream, *, may_capture: bool
    ) -> None:
        """Opens a context; nothing runs before ``take_scratch``.

        Raises:
            EngineMemoryError: There is too little memory.
            EngineLoadError: The library refused.
        """
        self._plan = plan
        self._device = device
        self._stream = stream
        self._may_capture = may_capture
        self._seen: set[Call] = set()
        self._captured: OrderedDict[Call, _Captured] = OrderedDict()
        self._scratch: Buffer | None = None
        self._common = PlanContext(plan, stream)

    @property
    def graphs(self) -> int:
        """How many calls are captured."""
        return len(self._captured)

    def output_shapes(self, shapes: tuple[tuple[str, Shape], ...]) -> Mapping[str, Shape]:
        """Return the shapes of all outputs for these inputs.

        Raises:
            EngineRunError: They are none that the engine was built for.
        """
        self._common.arrange(shapes)
        return {spec.name: self._common.shape_of(spec.name) for spec in self._plan.outputs}

    def take_scratch(self) -> None:
        """Take the memory for what lies between the layers.

        Raises:
            OutOfDeviceMemoryError: There is not so much.
        """
        if self._plan.scratch_bytes:
            self._scratch = self._device.allocate(self._plan.scratch_bytes)
        self._common.use(self._scratch)

    def ask(self, call: Call, work: Work) -> None:
        """Ask the stream for a call.

        Raises:
            EngineRunError: The library refused.
            DeviceError: The device failed.
        """
        captured = self._captured.get(call)
        if captured is not None:
            self._captured.move_to_end(call)
            captured.graph.launch(self._stream)
        elif self._may_capture and call in self._seen:
            self._seen.discard(call)
            self._ask_and_capture(call, work)
        else:
            if len(self._seen) >= _MOST_REMEMBERED:
                self._seen.clear()
            self._seen.add(call)
            self._ask_plainly(call, work)

    def profile(self, call: Call, work: Work, profiler: object) -> None:
        """Ask the stream for a call whose layers are timed; it is never a graph."""
        self._common.profile_layers(profiler)
        try:
            self._ask_plainly(call, work)
            self._stream.synchronize()
        finally:
            self._common.profile_layers(None)

    def close(self) -> None:
        """Drop graphs and contexts; nothing of them runs any more.

        Raises:
            DeviceError: The device failed; they are dropped all the same.
        """
        with ExitStack() as stack:
            stack.callback(self._common.close)
            for captured in self._captured.values():
                stack.callback(captured.context.close)
                stack.callback(captured.graph.free)
            self._captured.clear()

    def _ask_plainly(self, call: Call, work: Work) -> None:
        self._common.arrange(call.shapes)
        self._common.place(call.addresses)
        work(self._common.enqueue)

    def _ask_and_capture(self, call: Call, work: Work) -> None:
        context = self._another_context()
        if context is None:
            self._ask_plainly(call, work)
            return
        try:
            context.arrange(call.shapes)
            context.place(call.addresses)
            # Once without a capture: what the library still puts off is done then.
            work(context.enqueue)
            graph = self._capture(context, work)
        except BaseException:
            self._drop(context)
            raise
        if graph is None:
            self._drop(context)
        else:
            self._captured[call] = _Captured(context, graph)

    def _another_context(self) -> PlanContext | None:
        try:
            context = PlanContext(self._plan, self._stream)
        except EngineError as error:
            self._give_up(str(error))
            return None
        context.use(self._scratch)
        return context

    def _capture(self, context: PlanContext, work: Work) -> Graph | None:
        if not context.is_capturable():
            self._give_up("the library says that it cannot be captured")
            return None
        while len(self._captured) >= MOST_GRAPHS:
            _, oldest = self._captured.popitem(last=False)
            self._stream.synchronize()
            oldest.graph.free()
            oldest.context.close()
        try:
            return self._device.capture(self._stream, lambda: work(context.enqueue))
        except (EngineRunError, DeviceError) as error:
            self._give_up(str(error))
            return None

    def _give_up(self, reason: str) -> None:
        """From now on everything is asked for as it comes."""
        self._may_capture = False
        _log.info("engine.graph_refused", reason=reason)

    def _drop(self, context: PlanContext) -> None:
        """Close a context that may still be running."""
        try:
            self._stream.synchronize()
        finally:
            context.close()
