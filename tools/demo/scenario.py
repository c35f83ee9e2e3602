"""The fixed set that ``edge-triage demo --once`` pushes, and what must become of each study."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import data

from dicom_node.errors import DicomNodeError
from dicom_node.headers import header_of, scan_file
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.reasons import ReasonCode
from tools.phantoms.chest_studies import ChestName
from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.studies import plan_study, write_batches
from tools.phantoms.variants import Expectation, PhantomName

_OUTCOMES = {
    Expectation.SUSPECTED: AnalysisState.SUSPECTED,
    Expectation.NOT_SUSPECTED: AnalysisState.NOT_SUSPECTED,
    Expectation.NOT_ANALYSED: AnalysisState.NOT_ANALYSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomCase:
    """A phantom study to push; seeds differ, so that no two patients are the same."""

    label: str
    name: PhantomName | ChestName
    seed: int
    positive: bool = False
    syntax: PhantomSyntax = PhantomSyntax.EXPLICIT
    reason: ReasonCode | None = None
    """The reason that a refusal must give."""


PHANTOMS: tuple[PhantomCase, ...] = (
    PhantomCase(label="positive 1", name=PhantomName.HEAD_CT, seed=101, positive=True),
    PhantomCase(label="negative 1", name=PhantomName.HEAD_CT, seed=102),
    PhantomCase(label="positive exam", name=PhantomName.FULL_EXAM, seed=103, positive=True),
    PhantomCase(label="negative exam", name=PhantomName.FULL_EXAM, seed=104),
    PhantomCase(
        label="missing slice",
        name=PhantomName.MISSING_SLICE,
        seed=105,
        positive=True,
        reason=ReasonCode.MISSING_SLICES,
    ),
    PhantomCase(label="late image", name=PhantomName.LATE_IMAGE, seed=106, positive=True),
    PhantomCase(
        label="dose report only",
        name=PhantomName.DOSE_REPORT,
        seed=107,
        reason=ReasonCode.NO_IMAGES,
    ),
    PhantomCase(
        label="JPEG 2000",
        name=PhantomName.HEAD_CT,
        seed=108,
        positive=True,
        syntax=PhantomSyntax.JPEG2000,
    ),
    PhantomCase(label="JPEG-LS", name=PhantomName.HEAD_CT, seed=109, syntax=PhantomSyntax.JPEG_LS),
    PhantomCase(
        label="RLE",
        name=PhantomName.HEAD_CT,
        seed=110,
        positive=True,
        syntax=PhantomSyntax.RLE,
    ),
    PhantomCase(
        label="JPEG lossless",
        name=PhantomName.HEAD_CT,
        seed=111,
        syntax=PhantomSyntax.JPEG_LOSSLESS,
    ),
    PhantomCase(label="chest, opacity", name=ChestName.DX, seed=201, positive=True),
    PhantomCase(label="chest, clear", name=ChestName.CR, seed=202),
    PhantomCase(label="chest, two views", name=ChestName.PAIR, seed=203, positive=True),
    PhantomCase(
        label="chest, adult",
        name=ChestName.ADULT,
        seed=204,
        positive=True,
        reason=ReasonCode.AGE_OUT_OF_RANGE,
    ),
    PhantomCase(
        label="chest, no age",
        name=ChestName.AGE_MISSING,
        seed=205,
        reason=ReasonCode.AGE_MISSING,
    ),
)

HEAD_MODEL, CHEST_MODEL = MODELS = ("head_ct_phantom", "paediatric_cxr_pneumonia")
"""The models that the demonstration runs; each looks at every study."""

REAL_FILES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "JPEG2000.dcm",
    "SC_rgb_rle_2frame.dcm",
    "emri_small.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
)
"""Real DICOM files that pydicom's wheel carries; no model of ours is for any of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Files that the scanner pushes together; the next batch waits until the study is decided."""

    paths: tuple[Path, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One study to push, and what must become of it; None where anything decided will do."""

    label: str
    study_instance_uid: str
    batches: tuple[Batch, ...]
    outcome: AnalysisState | None
    reason: ReasonCode | None = None
    model: str | None = None
    """Which model must say so; every other one must find that the study is not for it. None: all
    must."""


def draw_phantom(case: PhantomCase, folder: Path) -> Push:
    """Write a phantom's files and say what is expected of it."""
    study = plan_study(case.name.value, seed=case.seed, positive=case.positive, syntax=case.syntax)
    batches = tuple(
        Batch(paths=paths, revision=number)
        for number, paths in enumerate(write_batches(study, folder), start=1)
    )
    return Push(
        label=f"phantom: {case.label}",
        study_instance_uid=str(study.study_uid),
        batches=batches,
        outcome=_OUTCOMES[study.expectation],
        reason=case.reason,
        model=CHEST_MODEL if isinstance(case.name, ChestName) else HEAD_MODEL,
    )


def real_files() -> list[Path]:
    """Return the real files that this installation of pydicom carries; nothing is fetched."""
    folder = Path(data.__file__).parent / "test_files"
    return [folder / name for name in REAL_FILES if (folder / name).is_file()]


def by_study(paths: Sequence[Path], label: str, outcome: AnalysisState | None) -> Iterator[Push]:
    """Group files by study, as a scanner would send them; what is no DICOM is left out."""
    studies: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        uid = _study_uid(path)
        if uid is not None:
            studies[uid].append(path)
    for uid, files in studies.items():
        yield Push(
            label=f"{label}: {files[0].name}" + (f" and {len(files) - 1} more" * (len(files) > 1)),
            study_instance_uid=uid,
            batches=(Batch(paths=tuple(files), revision=1),),
            outcome=outcome,
        )


def _study_uid(path: Path) -> str | None:
    try:
        return header_of(scan_file(path)).study_instance_uid
    except (DicomNodeError, OSError):
        return None
