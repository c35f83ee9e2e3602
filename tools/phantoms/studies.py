"""Phantom studies by name, whichever part of the body they show."""

from __future__ import annotations

from pathlib import Path

from tools.phantoms.chest_studies import (
    ChestName,
    ChestStudy,
    make_chest_study,
    write_chest_study,
)
from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.errors import PhantomUsageError
from tools.phantoms.variants import (
    DEFAULT_SLICES,
    PhantomName,
    PhantomStudy,
    make_study,
    write_study,
)

NAMES = tuple(name.value for kind in (PhantomName, ChestName) for name in kind)

AnyStudy = PhantomStudy | ChestStudy


def plan_study(
    name: str,
    *,
    seed: int = 0,
    positive: bool = False,
    slices: int = DEFAULT_SLICES,
    syntax: PhantomSyntax = PhantomSyntax.EXPLICIT,
) -> AnyStudy:
    """Plan a study; nothing is drawn yet.

    Args:
        name: one of ``NAMES``.
        seed: draws everything.
        positive: with what the model for it looks for.
        slices: of a CT.
        syntax: transfer syntax.

    Raises:
        PhantomUsageError: there is no such study, or it cannot be made that way.
    """
    if name in {each.value for each in PhantomName}:
        return make_study(
            PhantomName(name), seed=seed, positive=positive, slices=slices, syntax=syntax
        )
    if name in {each.value for each in ChestName}:
        return make_chest_study(ChestName(name), seed=seed, positive=positive, syntax=syntax)
    raise PhantomUsageError(f"there is no phantom study {name!r}; choose one of {', '.join(NAMES)}")


def write_batches(study: AnyStudy, folder: Path) -> list[tuple[Path, ...]]:
    """Write a study's files, in the batches in which its scanner would push them."""
    if isinstance(study, ChestStudy):
        return [write_chest_study(study, folder)]
    return [write_study(study, folder, batch) for batch in range(len(study.batches))]
