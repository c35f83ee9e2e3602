"""What the host does besides the contract, and what the contract's books do on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulators.device_work import captured_copies, numbers, one_of_each

from engines.device.contract import Buffer, DeviceInfo, Kind
from engines.device.host import HostDevice
from engines.errors import DeviceError, OutOfDeviceMemoryError


def test_a_host_has_as_much_memory_as_it_is_given() -> None:
    with HostDevice(total_bytes=1000) as host:
        assert host.info.total_bytes == 1000
        assert host.memory().free_bytes == 1000
        buffer, pinned = host.allocate(300), host.pinned((100,), np.int16)
        assert host.memory().free_bytes == 500
        with pytest.raises(OutOfDeviceMemoryError, match="500 left of 1000"):
            host.allocate(501)
        host.allocate(500)
        for each in (buffer, pinned):
            each.free()
        assert host.memory().free_bytes == 500


def test_a_function_of_the_host_is_called_in_the_order_of_its_stream() -> None:
    seen: list[float] = []
    with HostDevice() as host:
        stream = host.stream()
        buffer, target = host.allocate(16), host.pinned((4,), np.float32)
        host.copy_in(buffer, numbers(4), stream)
        host.copy_out(target.array, buffer, stream)
        host.call(stream.pointer, lambda: seen.append(float(target.array.sum())))
        assert seen == [6.0]


def test_a_function_of_the_host_in_a_graph_is_called_at_each_launch() -> None:
    seen: list[float] = []
    with HostDevice() as host:
        copies, source, target, stream = captured_copies(host)

        def work() -> None:
            copies()
            host.call(stream.pointer, lambda: seen.append(float(target.array[0])))

        graph = host.capture(stream, work)
        assert seen == []
        for value in (1, 2):
            source.array[:] = value
            graph.launch(stream)
        assert seen == [1.0, 2.0]


def test_a_function_for_no_stream_is_refused() -> None:
    with HostDevice() as host:
        pointer = host.stream().pointer
        with HostDevice() as other, pytest.raises(DeviceError, match="no stream"):
            other.call(pointer, lambda: None)
        with pytest.raises(DeviceError, match="no stream"):
            host.call(pointer + 1000, lambda: None)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [np.uint64(0), np.uint64(0), np.float32(1)],
        [np.uint64(0), np.uint64(0), np.float32(1), np.int64(1)],
        [np.uint64(0), np.uint64(0), np.float32(1), np.int32(1), np.int32(1)],
    ],
)
def test_arguments_that_a_kernel_does_not_take_are_refused_with_both_sizes(
    image: bytes, library: str, arguments: list[np.generic]
) -> None:
    if library != "host":
        pytest.skip("the kernels were compiled for another device")
    with HostDevice() as host:
        module = host.load_module(image)
        with pytest.raises(DeviceError, match=r"takes arguments of \[8, 8, 4, 4\] bytes, not"):
            module.launch(
                "add_scaled",
                host.stream(),
                grid=(1, 1, 1),
                block=(1, 1, 1),
                arguments=arguments,
            )


class ListingHost(HostDevice):
    """Notes what is freed, and can refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.freed: list[Kind] = []
        self.refused: frozenset[Kind] = frozenset()
        self.is_left = False

    def _free(self, kind: Kind, handle: Any) -> None:
        self.freed.append(kind)
        if kind in self.refused:
            raise OSError(f"no {kind.value}")
        super()._free(kind, handle)

    def _leave(self) -> None:
        self.is_left = True
        super()._leave()


def test_exit_frees_the_youngest_first(image: bytes, library: str) -> None:
    if library != "host":
        pytest.skip("the kernels were compiled for another device")
    host = ListingHost()
    with host:
        one_of_each(host, image)
        host.allocate(4)
    assert host.freed == [
        Kind.BUFFER,
        Kind.GRAPH,
        Kind.MODULE,
        Kind.EVENT,
        Kind.BUFFER,
        Kind.PINNED,
        Kind.STREAM,
    ]


def leave_with_refusals(host: ListingHost, error: Exception | None) -> None:
    with host:
        host.stream()
        host.pinned((1,), np.int8)
        host.allocate(4)
        host.refused = frozenset({Kind.BUFFER, Kind.PINNED})
        if error is not None:
            raise error


def test_what_cannot_be_freed_is_told_after_everything_was_tried() -> None:
    host = ListingHost()
    with pytest.raises(DeviceError, match=r"freeing a buffer.*no buffer"):
        leave_with_refusals(host, None)
    assert host.freed == [Kind.BUFFER, Kind.PINNED, Kind.STREAM]
    assert host.is_left


def test_what_cannot_be_freed_does_not_hide_the_error_of_the_block() -> None:
    host = ListingHost()
    with pytest.raises(KeyError, match="the cause"):
        leave_with_refusals(host, KeyError("the cause"))
    assert host.freed == [Kind.BUFFER, Kind.PINNED, Kind.STREAM]
    assert host.is_left


def test_a_resource_that_could_not_be_freed_is_not_freed_again() -> None:
    host = ListingHost()
    with host:
        buffer: Buffer = host.allocate(4)
        host.refused = frozenset({Kind.BUFFER})
        with pytest.raises(DeviceError):
            buffer.free()
        assert host.open_resources()[Kind.BUFFER] == 0
    assert host.freed == [Kind.BUFFER]


class UnopenableHost(HostDevice):
    """Cannot be opened."""

    def _enter(self) -> DeviceInfo:
        raise OSError("broken")


def test_a_device_that_cannot_be_opened_is_an_error_of_ours() -> None:
    with pytest.raises(DeviceError, match="opening the device"), UnopenableHost():
        pass
