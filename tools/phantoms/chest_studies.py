"""Named chest radiograph studies: children as the model is for, and what its gate must refuse.

``make_chest_study`` plans a study; nothing is drawn until its objects are iterated. The same
arguments give the same bytes. ``python -m tools.phantoms.chest_studies`` writes one as files.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import ChestSpec, OpacityKind, draw_chest_spec
from tools.phantoms.encoding import PhantomSyntax, encode_pixels
from tools.phantoms.headers import DEFAULT_ACQUIRED, PhantomIdentity, derived_uid
from tools.phantoms.radiograph import (
    RadiographHeader,
    RadiographKind,
    RadiographStudy,
    View,
    radiograph_dataset,
)
from tools.phantoms.variants import Expectation

CHILD_YEARS = (1, 6)
"""From the first birthday to the day before the sixth."""
ADULT_YEARS = (20, 90)
BITS = (10, 12, 14, 15, 16)


class ChestName(str, Enum):
    """The closed list of chest studies."""

    DX = "chest-dx"
    CR = "chest-cr"
    INVERTED = "chest-monochrome1"
    PAIR = "chest-two-views"
    """A frontal radiograph and a lateral one, which is left out."""
    ADULT = "chest-adult"
    INFANT = "chest-infant"
    """Below one year."""
    AGE_MISSING = "chest-age-missing"
    RAW = "chest-for-processing"
    LATERAL = "chest-lateral"
    VIEW_MISSING = "chest-view-missing"


_REFUSED = frozenset(
    {
        ChestName.ADULT,
        ChestName.INFANT,
        ChestName.AGE_MISSING,
        ChestName.RAW,
        ChestName.LATERAL,
        ChestName.VIEW_MISSING,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestStudy:
    """A planned study; iterate ``datasets`` to draw it."""

    name: ChestName
    spec: ChestSpec
    study: RadiographStudy
    images: tuple[RadiographHeader, ...]
    rows: int
    columns: int
    syntax: PhantomSyntax
    expectation: Expectation

    @property
    def study_uid(self) -> UID:
        """StudyInstanceUID."""
        return self.study.study_uid

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.images)

    def datasets(self) -> Iterator[Dataset]:
        """Objects in the order of sending, in the study's syntax."""
        density = draw_chest(self.spec, rows=self.rows, columns=self.columns).density
        for image in self.images:
            dataset = radiograph_dataset(self.study, image, density)
            encode_pixels(dataset, self.syntax)
            yield dataset

    def files(self) -> Iterator[bytes]:
        """The same as DICOM files (PS3.10)."""
        for dataset in self.datasets():
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            yield buffer.getvalue()


def make_chest_study(
    name: ChestName,
    *,
    seed: int = 0,
    positive: bool = False,
    opacity: OpacityKind | None = None,
    rows: int = 512,
    columns: int = 448,
    syntax: PhantomSyntax = PhantomSyntax.EXPLICIT,
    acquired: dt.datetime = DEFAULT_ACQUIRED,
    identity: PhantomIdentity | None = None,
) -> ChestStudy:
    """Plan a study.

    Args:
        name: which study.
        seed: draws the chest, the machine and the invented patient.
        positive: with an opacity.
        opacity: its kind; None lets the seed choose.
        rows: of the picture.
        columns: of the picture.
        syntax: transfer syntax.
        acquired: time of the study.
        identity: an invented patient of the caller's; None takes the seed's.
    """
    spec = draw_chest_spec(seed, opacity=opacity, positive=positive)
    who = identity or chest_identity(name, seed, acquired=acquired)
    basis = (name.value, seed, positive, opacity, rows, columns, syntax.value, acquired, who)
    uid = derived_uid("chest study", *basis)
    has_opacity = spec.opacity is not None
    expectation = Expectation.SUSPECTED if has_opacity else Expectation.NOT_SUSPECTED
    return ChestStudy(
        name=name,
        spec=spec,
        study=RadiographStudy(
            study_uid=uid,
            identity=who,
            acquired=acquired,
            knows_age=name is not ChestName.AGE_MISSING,
        ),
        images=_plan(name, seed, uid),
        rows=rows,
        columns=columns,
        syntax=syntax,
        expectation=Expectation.NOT_ANALYSED if name in _REFUSED else expectation,
    )


def chest_identity(
    name: ChestName, seed: int, *, acquired: dt.datetime = DEFAULT_ACQUIRED
) -> PhantomIdentity:
    """The patient that belongs to a study: a child whose name says phantom, an adult, an infant."""
    rng = np.random.default_rng([seed, 29])
    low, high = ADULT_YEARS if name is ChestName.ADULT else CHILD_YEARS
    days = int(rng.integers(round(low * 365.25) + 2, round(high * 365.25) - 2))
    if name is ChestName.INFANT:
        days = int(rng.integers(30, 330))
    return PhantomIdentity(
        patient_name=f"PHANTOM^CHEST{seed}",
        patient_id=f"PHANTOM-C{seed:06d}",
        birth_date=acquired.date() - dt.timedelta(days=days),
        sex=str(rng.choice(("F", "M"))),
        accession_number=f"PC{seed:08d}"[:16],
    )


def write_chest_study(study: ChestStudy, folder: Path) -> tuple[Path, ...]:
    """Write a study's files, ``IM000001.dcm`` on; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, content in enumerate(study.files(), start=1):
        path = folder / f"IM{number:06d}.dcm"
        path.write_bytes(content)
        paths.append(path)
    return tuple(paths)


def _plan(name: ChestName, seed: int, study_uid: UID) -> tuple[RadiographHeader, ...]:
    rng = np.random.default_rng([seed, 28])
    kind = {ChestName.CR: RadiographKind.CR, ChestName.RAW: RadiographKind.DX_RAW}.get(
        name, RadiographKind.DX
    )
    frontal: tuple[View | None, ...] = (View.AP if rng.random() < 0.7 else View.PA,)
    if name is ChestName.VIEW_MISSING:
        frontal = (None,)
    elif name is ChestName.LATERAL:
        frontal = (View.LATERAL,)
    elif name is ChestName.PAIR:
        frontal = (*frontal, View.LATERAL)
    return tuple(
        RadiographHeader(
            kind=kind,
            series_uid=derived_uid(study_uid, "series", number),
            sop_uid=derived_uid(study_uid, "image", number),
            series_number=number,
            view=view,
            # Detectors measure what gets through, so raw values are dark where the chest is dense.
            inverted=name in {ChestName.INVERTED, ChestName.RAW},
            bits=int(rng.choice(BITS)),
            pixel_mm=0.5,
        )
        for number, view in enumerate(frontal, start=1)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[name.value for name in ChestName])
    parser.add_argument("--out", type=Path, required=True, help="folder for the DICOM files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--positive", action="store_true", help="with an opacity")
    parser.add_argument(
        "--syntax",
        choices=[syntax.value for syntax in PhantomSyntax],
        default=PhantomSyntax.EXPLICIT.value,
    )
    options = parser.parse_args(arguments)
    study = make_chest_study(
        ChestName(options.name),
        seed=options.seed,
        positive=options.positive,
        rows=1024,
        columns=896,
        syntax=PhantomSyntax(options.syntax),
    )
    for path in write_chest_study(study, options.out):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
