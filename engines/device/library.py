"""What a library that talks to a device's driver has to do, each thing in one method.

``Device`` checks, translates errors, makes the device current and keeps the books around these;
nothing else calls them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from engines.errors import DeviceError

Array: TypeAlias = npt.NDArray[Any]
Handle: TypeAlias = Any
"""What a library calls a resource by."""


class Kind(str, Enum):
    """What can be open on a device."""

    PINNED = "pinned"
    BUFFER = "buffer"
    STREAM = "stream"
    EVENT = "event"
    GRAPH = "graph"
    MODULE = "module"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """Which device, by which driver and library; a part of the key of what is built for it."""

    library: str
    """What talks to the driver: pycuda, cuda-bindings, host."""
    library_version: str
    name: str
    compute_capability: tuple[int, int]
    """(0, 0) of the host."""
    driver_version: int
    """As the driver counts: 1000 * major + 10 * minor of the newest CUDA that it serves; 0 of the
    host."""
    total_bytes: int
    is_integrated: bool
    """Shares its memory with the processor, as a Jetson does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryState:
    """At one moment."""

    free_bytes: int
    total_bytes: int


class DeviceLibrary(ABC):
    """One library, for one device."""

    @abstractmethod
    def _enter(self) -> DeviceInfo:
        """Open the device; what was taken before a failure is given back by ``_enter`` itself."""

    @abstractmethod
    def _leave(self) -> None:
        """Close the device; all resources are freed. It is not current in any thread."""

    @abstractmethod
    def _push(self) -> None:
        """Make the device current in this thread, where it is not."""

    @abstractmethod
    def _pop(self) -> None:
        """Take back the last ``_push``."""

    @abstractmethod
    def _translated(self, error: Exception, doing: str) -> DeviceError:
        """The library's exception as one of ours; running out of memory has its own."""

    @abstractmethod
    def _memory(self) -> MemoryState: ...

    @abstractmethod
    def _take_pinned(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[Handle, Array]: ...

    @abstractmethod
    def _allocate(self, nbytes: int) -> tuple[Handle, int]:
        """Return handle and address."""

    @abstractmethod
    def _open_stream(self) -> tuple[Handle, int]:
        """Return handle and CUstream."""

    @abstractmethod
    def _open_event(self, *, timing: bool) -> Handle: ...

    @abstractmethod
    def _begin_capture(self, stream: Handle) -> None:
        """Let the stream take down, instead of do; other threads may go on (thread-local mode)."""

    @abstractmethod
    def _end_capture(self, stream: Handle) -> Handle:
        """Return what was taken down, ready to launch; the stream works again in any case."""

    @abstractmethod
    def _drop_capture(self, stream: Handle) -> None:
        """Forget what was taken down; no error if the driver has already given it up."""

    @abstractmethod
    def _load_module(self, image: bytes) -> Handle: ...

    @abstractmethod
    def _free(self, kind: Kind, handle: Handle) -> None: ...

    @abstractmethod
    def _copy_in(self, address: int, array: Array, stream: Handle) -> None: ...

    @abstractmethod
    def _copy_out(self, array: Array, address: int, stream: Handle) -> None: ...

    @abstractmethod
    def _synchronize_stream(self, stream: Handle) -> None: ...

    @abstractmethod
    def _stream_wait(self, stream: Handle, event: Handle) -> None: ...

    @abstractmethod
    def _record_event(self, event: Handle, stream: Handle) -> None: ...

    @abstractmethod
    def _event_is_done(self, event: Handle) -> bool: ...

    @abstractmethod
    def _synchronize_event(self, event: Handle) -> None: ...

    @abstractmethod
    def _elapsed_ms(self, first: Handle, second: Handle) -> float: ...

    @abstractmethod
    def _launch_graph(self, graph: Handle, stream: Handle) -> None: ...

    @abstractmethod
    def _launch_kernel(
        self,
        module: Handle,
        name: str,
        stream: Handle,
        *,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
    ) -> None: ...
