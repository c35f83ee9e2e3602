"""What a model card is made from: the package's papers, and nothing that was typed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from edge_runtime.model.finding import TRIAGE_NOTICE
from engines.card import Evaluation, ModelCard, ReleaseStage
from engines.figures import FigureImage, read_figure
from engines.loading import LoadedPackage

STAGE_WORDS = {
    ReleaseStage.DEMONSTRATION: "Demonstration, not for patients",
    ReleaseStage.INVESTIGATIONAL: "Investigational, not cleared for clinical use",
    ReleaseStage.CLEARED: "Cleared, where the regulatory approval says so",
}

_SHOWN = Decimal("0.001")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSource:
    """One model's papers."""

    name: str
    version: str
    title: str
    intended_use: str
    disclaimer: str
    demonstration: bool
    digest: str
    """SHA-256 of the package's CHECKSUMS: which package the card belongs to."""
    card: ModelCard
    evaluation: Evaluation
    figures: tuple[FigureImage, ...]
    """Of ``card.figures``, in its order."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What stands above everything else, each once."""
        demonstration = ("Demonstration, not a cleared device.",) if self.demonstration else ()
        return tuple(
            dict.fromkeys(
                (
                    f"{TRIAGE_NOTICE}.",
                    *demonstration,
                    self.disclaimer,
                    *self.card.disclaimers,
                )
            )
        )


def card_source(package: LoadedPackage) -> CardSource:
    """Collects what the card of ``package`` is made from.

    Raises:
        PackageError: A figure changed since the package was opened.
    """
    manifest = package.manifest
    return CardSource(
        name=manifest.name,
        version=manifest.version,
        title=manifest.title,
        intended_use=manifest.intended_use,
        disclaimer=manifest.disclaimer,
        demonstration=manifest.demonstration,
        digest=package.digest,
        card=package.card,
        evaluation=package.evaluation,
        figures=tuple(read_figure(figure) for figure in package.figures),
    )


def evaluation_facts(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """Returns what was evaluated and on what, as label and text."""
    return (
        ("Evaluated version", evaluation.model_version),
        ("SHA-256 of the evaluated model.onnx", evaluation.model_sha256),
        *(
            (f"Operating point of {key} (probability)", f"{threshold:g}")
            for key, threshold in evaluation.thresholds.items()
        ),
        (
            "Cases",
            f"{evaluation.positives} with a finding, {evaluation.negatives} without",
        ),
        ("Test set", evaluation.test_set),
    )


def fraction_words(value: float) -> str:
    """Says a fraction to three decimals."""
    return f"{value:.3f}"


def interval_words(lower: float, upper: float) -> str:
    """Says an interval of fractions to three decimals, never narrower than it is."""
    low = Decimal(str(lower)).quantize(_SHOWN, rounding=ROUND_FLOOR)
    high = Decimal(str(upper)).quantize(_SHOWN, rounding=ROUND_CEILING)
    return f"{low}–{high}"


def level_words(level: float) -> str:
    """Says a confidence level per cent."""
    return f"{percent_of(level):g}\N{NO-BREAK SPACE}%"


def percent_of(level: float) -> float:
    """Turns a confidence level into per cent without the noise of binary fractions."""
    return float(Decimal(str(level)) * 100)


def number_words(value: float) -> str:
    """Says any number to four significant digits."""
    return f"{value:.4g}"
