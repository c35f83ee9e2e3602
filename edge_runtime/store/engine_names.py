"""How an analysis names the engine that ran it: one line for reports, pages and people.

``onnxruntime 1.31.0 CPUExecutionProvider``, and after it, where the site prefers others,
``, in place of tensorrt, tensorrt-rtx``: a report tells by itself that a fallback ran.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.config.settings import EngineBackend

_IN_PLACE_OF = ", in place of "
_PARTS = 3
_WORDS = {backend.value: backend for backend in EngineBackend}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineName:
    """Which software ran a model."""

    backend: EngineBackend
    version: str
    provider: str
    """The part of the library that computed, such as CPUExecutionProvider."""
    in_place_of: tuple[EngineBackend, ...] = ()
    """The engines that the site prefers and that could not run, the best first."""

    @property
    def text(self) -> str:
        """Return the line."""
        line = f"{self.backend.value} {self.version} {self.provider}"
        if not self.in_place_of:
            return line
        return line + _IN_PLACE_OF + ", ".join(backend.value for backend in self.in_place_of)


def parse_engine_name(text: str) -> EngineName | None:
    """Read the line again; None where another release wrote it otherwise."""
    software, _, others = text.partition(_IN_PLACE_OF)
    words = software.split(" ", _PARTS - 1)
    in_place_of = others.split(", ") if others else []
    if len(words) < _PARTS or any(word not in _WORDS for word in (words[0], *in_place_of)):
        return None
    return EngineName(
        backend=_WORDS[words[0]],
        version=words[1],
        provider=words[2],
        in_place_of=tuple(_WORDS[word] for word in in_place_of),
    )
