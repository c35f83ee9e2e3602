"""Notes what the Python code of this process does that a verification must not do."""

from __future__ import annotations

import os
import sys
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVIL = ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect")


class Watch:
    """Notes what Python code does while it is on; a hook cannot be taken away again."""

    def __init__(self) -> None:
        self.is_on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            self.seen.append(f"open {arguments[0]}")
        elif event in _EVIL:
            self.seen.append(event)
