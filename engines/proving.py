"""May this engine decide in place of the reference, on this device?

The reference is ONNX Runtime in FP32 on the processor. Both engines see the package's golden inputs
and random ones (``engines.drawn_inputs``). Proven is an engine that

* gives every golden output within the package's tolerance for its precision,
* gives what the reference gives for the random inputs, within the same tolerance,
* points the same way (cosine), so that a tolerance that is wide beside small outputs hides nothing,
* and decides no item otherwise at the operating point, golden or random.

The reference must itself reproduce the golden outputs: else nothing is proven by it. An engine that
was not proven is not used; ``engines.layers`` finds the layer at fault.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.batching import run_batches
from engines.contract import Engine, EngineMetadata, Precision
from engines.drawn_inputs import draw_inputs
from engines.errors import ParityError
from engines.golden import load_golden
from engines.loading import LoadedPackage
from engines.package import ModelPackage, Tolerance
from engines.parity import ParityReport, check_parity, check_tensors, compare, tolerance_of
from engines.plans.proof import Proof

RANDOM_ITEMS = 32
SEED = 20_261_121
"""The same inputs on every device and at every start: a failure can be looked into."""

LEAST_COSINE = {Precision.FP32: 0.99999, Precision.FP16: 0.999}
"""Far below what rounding does (FP32 1 - 1e-10, FP16 1 - 1e-6 with the packages that we ship), far
above what a wrong layer does."""
LEAST_COSINE_COARSE = 0.99
"""Of a model whose maker allows for more than half precision does: one with Q/DQ nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofReport:
    """What came of a comparison with the reference."""

    model: str
    """Name and version of the package."""
    package_digest: str
    candidate: EngineMetadata
    reference: EngineMetadata
    precision: Precision
    golden: ParityReport
    """Against the outputs that the package's maker saw."""
    golden_items: int
    random: ParityReport
    """Against the reference, on this device."""
    random_items: int
    least_cosine: float
    """That the outputs must have."""

    @property
    def holds(self) -> bool:
        """Whether the engine may be used."""
        return self.golden.holds and self.random.holds and self.cosine >= self.least_cosine

    @property
    def max_absolute(self) -> float:
        """Largest deviation of an output."""
        return max(self.golden.max_absolute, self.random.max_absolute)

    @property
    def cosine(self) -> float:
        """Smallest of any output."""
        return min(self.golden.cosine, self.random.cosine)

    @property
    def flips(self) -> int:
        """Decisions that differ."""
        return self.golden.flips + self.random.flips

    def as_proof(self, *, key_digest: str, plan_sha256: str) -> Proof:
        """Returns what is kept beside the plan that was compared."""
        return Proof(
            key_digest=key_digest,
            plan_sha256=plan_sha256,
            package_digest=self.package_digest,
            reference=f"{self.reference.backend.value} {self.reference.version}",
            golden_items=self.golden_items,
            random_items=self.random_items,
            max_absolute=self.max_absolute,
            cosine=self.cosine,
            flips=self.flips,
            passed=self.holds,
        )

    def require(self) -> None:
        """Does nothing when the engine may be used.

        Raises:
            ParityError: It may not; the text says how far it is off, and what to do.
        """
        if not self.holds:
            raise ParityError(
                f"{self.candidate.backend.value} {self.candidate.version} in "
                f"{self.precision.value} does not decide as the reference does for {self.model}: "
                f"golden inputs: {_shown(self.golden)}; random inputs: {_shown(self.random)}; do "
                "not use this engine on this device, or try another precision; `edge-triage "
                "engines verify` names the layer at fault"
            )


def prove(
    candidate: Engine,
    reference: Engine,
    package: LoadedPackage,
    *,
    precision: Precision = Precision.FP32,
    random_items: int = RANDOM_ITEMS,
    seed: int = SEED,
) -> ProofReport:
    """Compares an engine with the reference on golden and random inputs.

    Args:
        candidate: Loaded, with the package's model.
        reference: ONNX Runtime on the processor, loaded, with the same model in FP32.
        package: Whose golden tensors, tolerances and operating points hold.
        precision: In which the candidate computes.
        random_items: How many; fewer of large inputs.
        seed: Of the random inputs.

    Returns:
        The report; ``holds`` says whether the engine may be used.

    Raises:
        GoldenFileError: The golden files are bad.
        ModelFileError: The tensors of an engine are not those of ``package.toml``.
        ParityError: The reference does not reproduce the golden outputs.
        EngineOutputError: An engine answers in another shape, or with NaN or infinity.
        EngineError: An engine failed.
    """
    manifest = package.manifest
    rule = manifest.input
    check_tensors(candidate, manifest)
    check_parity(reference, package)
    golden = load_golden(package)
    given = golden.inputs[rule.name]
    drawn = draw_inputs(given, rule, count=random_items, seed=seed)
    return ProofReport(
        model=f"{manifest.name} {manifest.version}",
        package_digest=package.digest,
        candidate=candidate.metadata,
        reference=reference.metadata,
        precision=precision,
        golden=compare(golden.outputs, run_batches(candidate, rule, given), manifest, precision),
        golden_items=len(given),
        random=compare(
            run_batches(reference, rule, drawn),
            run_batches(candidate, rule, drawn),
            manifest,
            precision,
        ),
        random_items=len(drawn),
        least_cosine=least_cosine(manifest, precision),
    )


def least_cosine(package: ModelPackage, precision: Precision) -> float:
    """Returns the cosine that an engine's outputs must have with the reference's at least."""
    if tolerance_of(package, precision).absolute > Tolerance().absolute:
        return LEAST_COSINE_COARSE
    return LEAST_COSINE[precision]


def _shown(report: ParityReport) -> str:
    return (
        f"largest deviation {report.max_absolute:.3g}, cosine {report.cosine:.6f}, "
        f"{report.outside_tolerance} of {report.elements} out of tolerance, "
        f"{report.flips} decisions differ"
    )
