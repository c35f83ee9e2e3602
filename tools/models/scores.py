"""From a table of truth and probability to the numbers that a card may quote. Pure.

One row for each case and finding: ``case, finding, truth, probability``, and ``group`` where the
numbers are also wanted for groups, such as ``sex=female; age=18-40``. Cases are taken as
independent of each other: give one row for each patient, not for each image.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.card import Curve, CurveKind, CurvePoint, Estimate, Evaluation
from engines.package import FindingRule, ModelPackage
from tools.figures_of_merit import (
    Interval,
    area_under_roc,
    bootstrap,
    expected_calibration_error,
    proportion,
)
from tools.models.codes import key_of
from tools.models.errors import ScoresError

COLUMNS = ("case", "finding", "truth", "probability")
GROUP_COLUMN = "group"
MOST_ROWS = 1_000_000
MOST_ESTIMATES = 256
MOST_CURVES = 32
KEY_LETTERS = 64
ROC_POINTS = 32
BINS = 10
SEED = 20_260_115
"""Of the bootstrap: the same scores give the same file."""

_GROUP = re.compile(r"\s*([^=;]{1,60}?)\s*=\s*([^=;]{1,60}?)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One case and finding."""

    case: str
    finding: str
    truth: bool
    probability: float
    """Calibrated, as the device would report it."""
    groups: tuple[tuple[str, str], ...] = ()
    """Such as ('sex', 'female')."""


def read_scores(text: str, package: ModelPackage) -> tuple[Score, ...]:
    """Reads the table.

    Raises:
        ScoresError: a column is missing, or a row cannot be right; the text names its line.
    """
    reader = csv.DictReader(io.StringIO(text))
    columns = tuple(reader.fieldnames or ())
    if not set(COLUMNS) <= set(columns) <= {*COLUMNS, GROUP_COLUMN}:
        raise ScoresError(
            f"scores need the columns {', '.join(COLUMNS)}, and may have {GROUP_COLUMN}; "
            f"these have {', '.join(columns) or 'none'}"
        )
    keys = {finding.key for finding in package.findings}
    scores: dict[tuple[str, str], Score] = {}
    try:
        for row in reader:
            score = _score_of(row, reader.line_num, keys)
            if (score.case, score.finding) in scores or len(scores) >= MOST_ROWS:
                raise ScoresError(
                    f"scores, line {reader.line_num}: a case has one row for each finding, and "
                    f"there are at most {MOST_ROWS} rows"
                )
            scores[score.case, score.finding] = score
    except csv.Error as error:
        raise ScoresError(f"scores, line {reader.line_num}: {error}") from error
    return tuple(scores.values())


def evaluate(
    scores: Sequence[Score], package: ModelPackage, *, model_sha256: str, test_set: str
) -> Evaluation:
    """Works out every number.

    Raises:
        ScoresError: a finding lacks cases of one kind, or there are too many groups.
    """
    estimates: list[Estimate] = []
    curves: list[Curve] = []
    for rule in package.findings:
        of_finding = _OfFinding(rule, [score for score in scores if score.finding == rule.key])
        estimates += of_finding.estimates()
        curves += of_finding.curves()
    if len(estimates) > MOST_ESTIMATES:
        raise ScoresError(
            f"{len(estimates)} estimates; at most {MOST_ESTIMATES} fit: give fewer groups"
        )
    cases = {score.case for score in scores}
    positive = {score.case for score in scores if score.truth}
    return Evaluation(
        model_version=package.version,
        model_sha256=model_sha256,
        thresholds={rule.key: rule.operating_point.threshold for rule in package.findings},
        test_set=test_set,
        positives=len(positive),
        negatives=len(cases - positive),
        estimates=tuple(estimates),
        curves=tuple(curves[:MOST_CURVES]),
    )


class _OfFinding:
    """The numbers of one finding."""

    def __init__(self, rule: FindingRule, scores: Sequence[Score]) -> None:
        self._rule = rule
        self._scores = scores
        self._probabilities = np.array([score.probability for score in scores], np.float64)
        self._truth = np.array([score.truth for score in scores], np.bool_)
        if not self._truth.any() or self._truth.all():
            raise ScoresError(
                f"finding {rule.key!r} needs cases with it and cases without it; there are "
                f"{int(self._truth.sum())} of {len(scores)} with it"
            )
        self._name = rule.code.meaning

    def estimates(self) -> list[Estimate]:
        """Area, sensitivity, specificity, calibration error; the two in the middle by group."""
        area = area_under_roc(self._probabilities, self._truth)
        error = bootstrap(expected_calibration_error, self._probabilities, self._truth, seed=SEED)
        return [
            self._estimate("auc", "Area under the ROC curve", area),
            *self._proportions("sensitivity", "Sensitivity", _hits),
            *self._proportions("specificity", "Specificity", _spared),
            self._estimate("calibration_error", "Expected calibration error", error),
        ]

    def curves(self) -> list[Curve]:
        """ROC curve and reliability diagram."""
        return [
            Curve(
                key=self._key("roc"),
                kind=CurveKind.ROC,
                label=f"ROC curve, {self._name}",
                x_label="1 - specificity",
                y_label="Sensitivity",
                points=tuple(self._roc_points()),
            ),
            *self._reliability(),
        ]

    def _key(self, figure: str, *more: str) -> str:
        key = "_".join((figure, self._rule.key, *more))
        if len(key) > KEY_LETTERS:
            raise ScoresError(
                f"{key!r} is longer than {KEY_LETTERS} letters; shorten the finding's key or the "
                "group's name"
            )
        return key

    def _estimate(
        self, figure: str, label: str, interval: Interval, group: tuple[str, str] | None = None
    ) -> Estimate:
        named = (key_of("_".join(group)),) if group else ()
        suffix = f", {group[1]}" if group else ""
        # Rounded outwards, so that no interval is told narrower than it is.
        return Estimate(
            key=self._key(figure, *named),
            label=f"{label}, {self._name}{suffix}",
            group=f"By {group[0]}" if group else None,
            value=round(interval.value, 4),
            lower=math.floor(interval.lower * 1e4) / 1e4,
            upper=math.ceil(interval.upper * 1e4) / 1e4,
            cases=interval.cases,
        )

    def _proportions(
        self, figure: str, label: str, tell: Callable[[Sequence[Score], float], list[bool]]
    ) -> Iterator[Estimate]:
        """Of all cases, then of each group that has any."""
        threshold = self._rule.operating_point.threshold
        for group in (None, *self._groups()):
            among = [score for score in self._scores if group is None or group in score.groups]
            right = tell(among, threshold)
            if right:
                interval = proportion(sum(right), len(right))
                yield self._estimate(figure, label, interval, group)

    def _groups(self) -> list[tuple[str, str]]:
        return sorted({group for score in self._scores for group in score.groups})

    def _roc_points(self) -> Iterator[CurvePoint]:
        ill = self._probabilities[self._truth]
        well = self._probabilities[~self._truth]
        thresholds = np.unique(self._probabilities)[::-1]
        if len(thresholds) > ROC_POINTS:
            places = np.linspace(0, len(thresholds) - 1, ROC_POINTS).round().astype(np.int64)
            thresholds = thresholds[places]
        yield CurvePoint(x=0.0, y=0.0)
        for threshold in thresholds:
            found = proportion(int((ill >= threshold).sum()), len(ill))
            yield _point(float((well >= threshold).mean()), found)

    def _reliability(self) -> list[Curve]:
        place = np.minimum((self._probabilities * BINS).astype(np.int64), BINS - 1)
        points = []
        for number in sorted(set(place.tolist())):
            inside: NDArray[np.bool_] = place == number
            seen = proportion(int(self._truth[inside].sum()), int(inside.sum()))
            points.append(_point(float(self._probabilities[inside].mean()), seen))
        if len(points) < 2:  # noqa: PLR2004 - one point is no curve
            return []
        return [
            Curve(
                key=self._key("reliability"),
                kind=CurveKind.RELIABILITY,
                label=f"Reliability, {self._name}",
                x_label="Mean predicted probability",
                y_label="Observed frequency",
                points=tuple(points),
            )
        ]


def _point(x: float, y: Interval) -> CurvePoint:
    return CurvePoint(
        x=round(x, 4),
        y=round(y.value, 4),
        lower=math.floor(y.lower * 1e4) / 1e4,
        upper=math.ceil(y.upper * 1e4) / 1e4,
        cases=y.cases,
    )


def _hits(scores: Sequence[Score], threshold: float) -> list[bool]:
    return [score.probability >= threshold for score in scores if score.truth]


def _spared(scores: Sequence[Score], threshold: float) -> list[bool]:
    return [score.probability < threshold for score in scores if not score.truth]


def _score_of(row: dict[str, str], line: int, keys: set[str]) -> Score:
    truth, finding = (row["truth"] or "").strip(), (row["finding"] or "").strip()
    if None in row.values() or None in row or truth not in ("0", "1"):
        raise ScoresError(f"scores, line {line}: as many cells as columns, and truth 0 or 1")
    if finding not in keys:
        raise ScoresError(
            f"scores, line {line}: no finding {finding!r}; there are {', '.join(sorted(keys))}"
        )
    try:
        probability = float(row["probability"])
    except ValueError as error:
        raise ScoresError(f"scores, line {line}: probability is no number") from error
    if not 0 <= probability <= 1:
        raise ScoresError(f"scores, line {line}: a probability lies within 0 and 1")
    return Score(
        case=row["case"],
        finding=finding,
        truth=truth == "1",
        probability=probability,
        groups=_groups_of(row.get(GROUP_COLUMN) or "", line),
    )


def _groups_of(cell: str, line: int) -> tuple[tuple[str, str], ...]:
    groups = []
    for part in filter(str.strip, cell.split(";")):
        found = _GROUP.fullmatch(part)
        if found is None:
            raise ScoresError(f"scores, line {line}: write groups as title=name, with ; between")
        groups.append((found[1], found[2]))
    return tuple(groups)
