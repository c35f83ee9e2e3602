"""How much memory building and running may take, so that the rest of the device goes on."""

from __future__ import annotations

from engines.errors import EngineMemoryError

MIB = 1 << 20

LEAST_WORKSPACE_BYTES = 16 * MIB
"""With 8 MiB no layer of a small convolutional network found an implementation, with 16 all did
(TensorRT-RTX 1.7, both shipped models)."""

_CARD_MARGIN_BYTES = 256 * MIB
"""On a card of its own: for contexts, code, and what a desktop takes meanwhile."""
_CARD_MARGIN_PART = 20
_SHARED_MARGIN_BYTES = 1024 * MIB
"""Where processor and GPU share memory: the node must go on accepting images, and the kernel kills
somebody when nothing is left."""
_SHARED_MARGIN_PART = 8


def workspace_bytes(*, wanted: int, free: int, total: int, is_integrated: bool) -> int:
    """Return how many bytes may be taken: what is wanted, or less where less is free.

    Args:
        wanted: At most, by the settings.
        free: Now, as the driver tells.
        total: Of the device.
        is_integrated: Whether the processor uses the same memory.

    Returns:
        Whole MiB, at least ``LEAST_WORKSPACE_BYTES``.

    Raises:
        EngineMemoryError: Less than that is left beside the margin, or wanted.
    """
    if wanted < LEAST_WORKSPACE_BYTES:
        raise EngineMemoryError(
            f"the engine may use {wanted // MIB} MiB by its settings, but needs at least "
            f"{LEAST_WORKSPACE_BYTES // MIB}: allow it more memory"
        )
    margin = _margin_bytes(total, is_integrated=is_integrated)
    spare = free - margin
    if spare < LEAST_WORKSPACE_BYTES:
        raise EngineMemoryError(
            f"{max(free, 0) // MIB} of {total // MIB} MiB are free, of which {margin // MIB} stay "
            "free for the rest of the device: stop what else uses the GPU, or choose a smaller "
            "model or another engine"
        )
    return min(wanted, spare) // MIB * MIB


def _margin_bytes(total: int, *, is_integrated: bool) -> int:
    if is_integrated:
        return max(_SHARED_MARGIN_BYTES, total // _SHARED_MARGIN_PART)
    return max(_CARD_MARGIN_BYTES, total // _CARD_MARGIN_PART)
