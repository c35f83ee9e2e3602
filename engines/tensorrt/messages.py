"""What TensorRT says, given to whom it concerns.

A process has one logger: a second one is ignored by the vendor, and what it would have heard is
lost. Messages come on the thread that called, so that several builds can listen at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engines.tensorrt.interface import Logger, Member, TensorRtModule

_MOST_ERRORS = 16
_MOST_CHARACTERS = 2000


class Messages:
    """Errors that were told while somebody listened; of the first few, their beginnings."""

    def __init__(self) -> None:
        self._errors: list[str] = []

    @property
    def errors(self) -> tuple[str, ...]:
        """In order. The first one is the cause; without a GPU more follow that are noise."""
        return tuple(self._errors)

    def add(self, text: str) -> None:
        """Keeps an error, if there is room."""
        if len(self._errors) < _MOST_ERRORS:
            self._errors.append(" ".join(text[:_MOST_CHARACTERS].split()))


class MessageRouter:
    """Hands each error to the listener of its thread, or else to all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[int, list[Messages]] = {}

    @contextmanager
    def listening(self) -> Iterator[Messages]:
        """Collects the errors of what this thread asks of the library."""
        messages, thread = Messages(), threading.get_ident()
        with self._lock:
            self._listeners.setdefault(thread, []).append(messages)
        try:
            yield messages
        finally:
            with self._lock:
                self._listeners[thread].remove(messages)
                if not self._listeners[thread]:
                    del self._listeners[thread]

    def tell(self, text: str) -> None:
        """Passes on an error."""
        with self._lock:
            own = self._listeners.get(threading.get_ident())
            # The library's own threads belong to a build that cannot be told from others.
            concerned = own[-1:] if own else [each[-1] for each in self._listeners.values()]
            for messages in concerned:
                messages.add(text)


def make_logger(module: TensorRtModule, router: MessageRouter) -> Logger:
    """Returns the vendor's logger that hands errors to ``router``."""
    severities = module.ILogger.Severity
    serious = (severities.INTERNAL_ERROR, severities.ERROR)

    class RoutingLogger(module.ILogger):  # type: ignore[misc, name-defined]  # known at run time
        """An exception here would be printed and swallowed: none is raised."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Member, message: str) -> None:
            if severity in serious:
                router.tell(message)

    logger: Logger = RoutingLogger()
    return logger
