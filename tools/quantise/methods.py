"""How a quantisation takes a tensor's range from what calibration shows of it."""

from __future__ import annotations

from enum import Enum


class Method(str, Enum):
    """The ways that the library has and that differ: its entropy with its own bins is minmax."""

    MINMAX = "minmax"
    """All of it: what is rare and bright, as a bleed is, keeps its size."""
    PERCENTILE = "percentile"
    """All but the outermost 0.001 % on either side."""
