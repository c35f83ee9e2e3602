"""Which libraries can run a model here, and how to get one.

A new back end: its name in ``contract.Backend``, its adapter with a subclass of ``Engine``, its
case in ``open_engine``, its line in the contract tests. The choice is the site's and explicit: an
engine that is not there is an error, never another engine.
"""

from __future__ import annotations

from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
from engines.errors import EngineUnavailableError

__all__ = ["Backend", "open_engine"]


def open_engine(backend: Backend, model: VerifiedFile, options: EngineOptions) -> Engine:
    """Returns an engine for ``model``, to be entered with ``with``; nothing is loaded yet.

    Raises:
        EngineUnavailableError: The back end is not installed, has no device here, or the options
            let it use none; the text says what to do.
    """
    # Identity: a text that is spelt like a member is no member. Adapters are imported here and
    # nowhere else, so that a process loads the library that it uses and no other.
    if any(backend is each for each in (Backend.TENSORRT, Backend.TENSORRT_RTX)):
        from engines.tensorrt.engine import TensorRtEngine  # noqa: PLC0415 - see above

        return TensorRtEngine(model, options, backend)
    if any(backend is each for each in Backend):
        try:
            from engines.onnxruntime_engine import OnnxRuntimeEngine  # noqa: PLC0415 - see above
        except ImportError as error:
            raise EngineUnavailableError(
                "the back end 'onnxruntime' is not installed or does not load on this machine "
                f"({error}); install it with `pip install onnxruntime`"
            ) from error
        return OnnxRuntimeEngine(model, options, backend)
    raise EngineUnavailableError(
        f"there is no back end {backend!r}; choose one of {[item.value for item in Backend]}"
    )
