"""One plan on one device: memory for its inputs and outputs, and runs that overlap.

* All memory is taken when the session is opened, for the largest inputs of the plan: no run fails
  for want of it later.
* A run's inputs are copied before ``begin`` returns, and its outputs belong to the caller.
* There are as many runs under way as there are slots; what is asked of a slot that is in use is
  waited for first.
* A single run is asked of one stream; runs that overlap use three, for copies in, computing and
  copies out, so that each of these goes on while the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engines.contract import FREE, TensorSpec
from engines.device.contract import Buffer, Device, Event, PinnedArray, Stream
from engines.errors import DeviceError, EngineError, EngineMemoryError, EngineRunError
from engines.plans.budget import MIB, workspace_bytes
from engines.tensorrt.executing import Call, Executor, Shape, Work
from engines.tensorrt.layers import EngineLayer, inspect_layers
from engines.tensorrt.library import TensorRtLibrary
from engines.tensorrt.loading import LoadedPlan

Array: TypeAlias = NDArray[Any]
Shapes: TypeAlias = tuple[tuple[str, Shape], ...]

_MOST_SHAPES = 256
"""Of inputs, whose outputs' shapes are remembered."""

SLOTS = 2
"""While one is computed, the other is filled and emptied."""


class StagedInput(Protocol):
    """An input that somebody has put into memory of the session's own device."""

    @property
    def buffer(self) -> Buffer:
        """Holds the tensor from its first byte on, contiguous; untouched until the run is done."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor; its type is the model's."""
        ...

    @property
    def ready(self) -> Event:
        """After it the tensor is complete."""
        ...


class _Place:
    """Memory for one tensor, on both sides."""

    def __init__(self, device: Device, spec: TensorSpec, most: Shape) -> None:
        self.spec = spec
        self.pinned: PinnedArray = device.pinned((prod(most),), spec.element_type.dtype)
        self.buffer = device.allocate(prod(most) * spec.element_type.dtype.itemsize)

    def view(self, shape: Shape) -> Array:
        """Return the host's side as an array of this shape."""
        count = prod(shape)
        flat = self.pinned.array
        if count > flat.size:
            raise EngineRunError(
                f"tensor {self.spec.name!r} has shape {shape}: more than its largest input gives"
            )
        array: Array = flat[:count].reshape(shape)
        return array


class Run:
    """One run that was asked for."""

    def __init__(
        self, slot: _Slot, output_shapes: Mapping[str, Shape], done: Event | Stream
    ) -> None:
        self._slot: _Slot | None = slot
        self._output_shapes = output_shapes
        self._done = done
        self._outputs: dict[str, Array] = {}
        self._failure: EngineError | None = None

    def settle(self) -> None:
        """Wait for it, and take its outputs out of the slot, or remember why there are none."""
        if self._slot is None:
            return
        try:
            self._done.synchronize()
        except EngineError as error:
            self._failure = error
        else:
            places = self._slot.outputs
            self._outputs = {
                name: places[name].view(shape).copy() for name, shape in self._output_shapes.items()
            }
        self._slot.run = None
        self._slot = None

    def outputs(self) -> dict[str, Array]:
        """Return the outputs, when they are there; they belong to the caller.

        Raises:
            DeviceError: The device failed meanwhile.
        """
        self.settle()
        if self._failure is not None:
            raise self._failure
        return self._outputs


class _Slot:
    """Memory for one run."""

    def __init__(self, device: Device, plan: LoadedPlan, most: Mapping[str, Shape]) -> None:
        self.inputs = {spec.name: _Place(device, spec, most[spec.name]) for spec in plan.inputs}
        self.outputs = {spec.name: _Place(device, spec, most[spec.name]) for spec in plan.outputs}
        self.came, self.computed, self.done = device.event(), device.event(), device.event()
        self.addresses = tuple(
            (name, place.buffer.address) for name, place in (self.inputs | self.outputs).items()
        )
        self.run: Run | None = None
        self.begun = 0
        """Which run it was given last, counted from the session's first."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What one run is asked for, and where it lies."""

    slot: _Slot
    shapes: Shapes
    inputs: Mapping[str, Array | StagedInput]
    output_shapes: Mapping[str, Shape]

    def lay_in(self) -> list[tuple[Buffer, Array]]:
        """Copy what came as arrays to where the device can fetch it."""
        laid = []
        for name, given in self.inputs.items():
            if isinstance(given, np.ndarray):
                place = self.slot.inputs[name]
                view = place.view(given.shape)
                np.copyto(view, given)
                laid.append((place.buffer, view))
        return laid

    def lay_out(self) -> list[tuple[Buffer, Array]]:
        """Return from where to where the outputs are copied."""
        outputs = self.slot.outputs
        return [
            (outputs[name].buffer, outputs[name].view(shape))
            for name, shape in self.output_shapes.items()
        ]

    def call(self, *, has_copies: bool) -> Call:
        """Return what the executor is asked for."""
        staged = tuple(
            (name, given.buffer.address)
            for name, given in self.inputs.items()
            if not isinstance(given, np.ndarray)
        )
        addresses = self.slot.addresses
        if staged:
            addresses = tuple({**dict(addresses), **dict(staged)}.items())
        return Call(self.shapes, addresses, has_copies)


class Session:
    """See the module; the device is entered, and outlives the session."""

    def __init__(
        self,
        library: TensorRtLibrary,
        device: Device,
        plan: bytes,
        *,
        memory_bytes: int,
        dla_core: int | None = None,
        may_capture: bool = True,
        kernels: bytes = b"",
    ) -> None:
        """Loads a plan, and takes all memory that it will need.

        Args:
            library: Which built the plan.
            device: For which it was built.
            plan: Admitted by this device's own seal.
            memory_bytes: That may be taken on the device; less where less is free.
            dla_core: For which it was built.
            may_capture: Whether calls that come again may become CUDA graphs.
            kernels: What ``compiled_kernels`` gave before; empty for none.

        Raises:
            PlanRejectedError: The library does not take the plan.
            EngineMemoryError: There is too little memory, or the settings allow too little.
            EngineLoadError: The plan is of a model that we cannot run.
        """
        self._device = device
        self._closing = ExitStack()
        self._slots: list[_Slot] = []
        self._begun = 0
        self._known_shapes: dict[Shapes, Mapping[str, Shape]] = {}
        try:
            with device.current():
                self._plan = LoadedPlan(library, plan, dla_core, kernels=kernels)
                self._closing.callback(self._plan.close)
                self._open(memory_bytes, may_capture=may_capture)
        except BaseException:
            self.close()
            raise

    def _open(self, memory_bytes: int, *, may_capture: bool) -> None:
        device, plan = self._device, self._plan
        self._compute, self._copies_in, self._copies_out = (device.stream() for _ in range(3))
        self._executor = Executor(plan, device, self._compute, may_capture=may_capture)
        self._closing.callback(self._executor.close)
        widest = max(plan.profiles, key=lambda profile: sum(prod(r.most) for r in profile.ranges))
        most = {each.name: each.most for each in widest.ranges}
        most |= self._executor.output_shapes(tuple(most.items()))
        _check_room(device, plan, most, memory_bytes)
        self._executor.take_scratch()
        self._slots = [_Slot(device, plan, most) for _ in range(SLOTS)]
        self._closing.callback(self._settle)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        return self._plan.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it gives."""
        return self._plan.outputs

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self._device

    @property
    def most_items(self) -> int | None:
        """Of one batch; None where only one size is allowed."""
        if not any(spec.shape[:1] == (FREE,) for spec in self.inputs):
            return None
        return max(each.most[0] for profile in self._plan.profiles for each in profile.ranges)

    def allows(self, shapes: Mapping[str, Shape]) -> bool:
        """Say whether the plan was built for inputs of these shapes."""
        return self._plan.profile_for(shapes.items()) is not None

    def allowed_text(self) -> str:
        """Return the shapes that the plan was built for, for people."""
        return " or ".join(
            ", ".join(f"{each.name} {each.least} to {each.most}" for each in profile.ranges)
            for profile in self._plan.profiles
        )

    @property
    def graphs(self) -> int:
        """How many calls are CUDA graphs by now."""
        return self._executor.graphs

    @property
    def kernels_refusal(self) -> str:
        """Why the kernels of before are of no use; empty where they are, or there were none."""
        return self._plan.kernels_refusal

    def compiled_kernels(self) -> bytes:
        """Return the kernels that the library compiled so far; empty where a plan holds all."""
        with self._device.current():
            return self._plan.compiled_kernels()

    def close(self) -> None:
        """Give back what the library took; the device gives back its own.

        Raises:
            DeviceError: The device failed; all is given back that can be.
        """
        with self._device.current():
            closing, self._closing = self._closing, ExitStack()
            closing.close()

    def begin(self, inputs: Mapping[str, Array | StagedInput], *, overlaps: bool) -> Run:
        """Ask for a run, without waiting for it.

        Args:
            inputs: One for each of ``self.inputs``, of its type and of a shape that fits. Arrays
                are copied before this returns; what is staged must stay until the run is done.
            overlaps: Whether others will be asked for before this one is done.

        Raises:
            EngineRunError: The library refused.
            DeviceError: The device failed.
        """
        shapes = tuple((spec.name, tuple(inputs[spec.name].shape)) for spec in self.inputs)
        # The first that is idle: the same again and again, so that its graphs serve.
        idle = [each for each in self._slots if each.run is None]
        slot = idle[0] if idle else min(self._slots, key=lambda each: each.begun)
        if slot.run is not None:
            slot.run.settle()
        self._begun += 1
        slot.begun = self._begun
        try:
            with self._device.current():
                output_shapes = self._output_shapes(shapes)
                request = _Request(slot, shapes, inputs, output_shapes)
                ask = self._ask_overlapping if overlaps else self._ask_at_once
                slot.run = Run(slot, output_shapes, ask(request))
        except BaseException:
            # The slot is used again: nothing may still be copied from or to it.
            self._wait_for_all()
            raise
        return slot.run

    def run(self, inputs: Mapping[str, Array | StagedInput]) -> dict[str, Array]:
        """Run once, and wait for it; as ``begin`` and ``Run.outputs``."""
        with self._device.current():
            return self.begin(inputs, overlaps=False).outputs()

    def warm_up(self) -> None:
        """Run zeros of the shapes that it was made fast for, until nothing is put off any more.

        Raises:
            EngineRunError: The library refused.
            DeviceError: The device failed.
        """
        types = {spec.name: spec.element_type.dtype for spec in self.inputs}
        for profile in self._plan.profiles:
            zeros = {each.name: np.zeros(each.best, types[each.name]) for each in profile.ranges}
            # As it comes, as what is captured, and as a graph.
            for _ in range(3):
                self.run(zeros)

    def layer_times(self, inputs: Mapping[str, Array]) -> tuple[tuple[str, float], ...]:
        """Run once, and return how many milliseconds each layer took, in order.

        Raises:
            EngineRunError: The library refused.
            DeviceError: The device failed.
        """
        times: list[tuple[str, float]] = []
        base = self._plan.library.module.IProfiler

        class Profiler(base):  # type: ignore[misc, valid-type]  # known at run time
            def __init__(self) -> None:
                base.__init__(self)

            def report_layer_time(self, layer: str, ms: float) -> None:
                times.append((layer, ms))

        shapes = tuple((spec.name, tuple(inputs[spec.name].shape)) for spec in self.inputs)
        self._settle()
        with self._device.current():
            request = _Request(self._slots[0], shapes, inputs, self._output_shapes(shapes))
            call, work = self._at_once(request)
            self._executor.profile(call, work, Profiler())
        return tuple(times)

    def layers(self) -> tuple[EngineLayer, ...]:
        """Return what the layers are, in order.

        Raises:
            EngineLoadError: The library does not tell.
        """
        with self._device.current():
            return inspect_layers(self._plan.library.module, self._plan.engine)

    def _output_shapes(self, shapes: Shapes) -> Mapping[str, Shape]:
        known = self._known_shapes.get(shapes)
        if known is None:
            if len(self._known_shapes) >= _MOST_SHAPES:
                self._known_shapes.clear()
            known = self._known_shapes[shapes] = self._executor.output_shapes(shapes)
        return known

    def _ask_at_once(self, request: _Request) -> Stream:
        self._wait_for_staged(request)
        self._executor.ask(*self._at_once(request))
        return self._compute

    def _at_once(self, request: _Request) -> tuple[Call, Work]:
        """All of it in one stream, and in one graph."""
        given, taken = request.lay_in(), request.lay_out()

        def work(execute: Callable[[], None]) -> None:
            for buffer, array in given:
                self._device.copy_in(buffer, array, self._compute)
            execute()
            for buffer, array in taken:
                self._device.copy_out(array, buffer, self._compute)

        return request.call(has_copies=True), work

    def _ask_overlapping(self, request: _Request) -> Event:
        slot = request.slot
        for buffer, array in request.lay_in():
            self._device.copy_in(buffer, array, self._copies_in)
        slot.came.record(self._copies_in)
        self._compute.wait_for(slot.came)
        self._wait_for_staged(request)
        self._executor.ask(request.call(has_copies=False), lambda execute: execute())
        slot.computed.record(self._compute)
        self._copies_out.wait_for(slot.computed)
        for buffer, array in request.lay_out():
            self._device.copy_out(array, buffer, self._copies_out)
        slot.done.record(self._copies_out)
        return slot.done

    def _wait_for_staged(self, request: _Request) -> None:
        for given in request.inputs.values():
            if not isinstance(given, np.ndarray):
                self._compute.wait_for(given.ready)

    def _settle(self) -> None:
        for slot in self._slots:
            if slot.run is not None:
                slot.run.settle()

    def _wait_for_all(self) -> None:
        for stream in (self._copies_in, self._compute, self._copies_out):
            # What failed is on its way to the caller already.
            with suppress(DeviceError):
                stream.synchronize()


def _check_room(
    device: Device, plan: LoadedPlan, most: Mapping[str, Shape], memory_bytes: int
) -> None:
    state = device.memory()
    allowed = workspace_bytes(
        wanted=memory_bytes,
        free=state.free_bytes,
        total=state.total_bytes,
        is_integrated=device.info.is_integrated,
    )
    tensors = sum(
        prod(most[spec.name]) * spec.element_type.dtype.itemsize
        for spec in (*plan.inputs, *plan.outputs)
    )
    # Where processor and GPU share memory, what is pinned is taken from the same.
    sides = 2 if device.info.is_integrated else 1
    needed = plan.scratch_bytes + tensors * SLOTS * sides
    if needed > allowed:
        raise EngineMemoryError(
            f"running the engine takes {needed // MIB + 1} MiB, and {allowed // MIB} may be used: "
            "let it take fewer items in one batch, or allow it more memory in the settings"
        )
