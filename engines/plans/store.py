"""The plans that this device built, with their proofs, and what the libraries keep between runs.

A plan is found by its key, or built by one process while the others wait::

    with store.building(key) as found:
        plan = found or store.keep(key, build())

It may go live when ``is_proven_for`` says so; nothing here runs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engines.errors import PlanRejectedError
from engines.plans.key import PlanKey
from engines.plans.proof import Proof
from engines.plans.sealed import SealedContent, SealedHeader, SealedKind
from engines.plans.sealed_folder import PutAside, SealedFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlan:
    """A plan that this device built."""

    key: PlanKey
    plan: bytes = field(repr=False)
    sha256: str
    """Of the plan."""
    proof: Proof | None
    """Of this very plan; None when it was not compared yet."""

    def is_proven_for(self, package_digest: str, reference: str) -> bool:
        """Say whether the plan may go live.

        Args:
            package_digest: Of the package whose golden inputs and operating point count.
            reference: Engine and version that gives the right numbers now.
        """
        return (
            self.proof is not None
            and self.proof.passed
            and self.proof.package_digest == package_digest
            and self.proof.reference == reference
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """A plan in the store, by what it says about itself; its content was not looked at."""

    digest: str
    """Of the key."""
    key: PlanKey | None
    """None when this device did not seal it, or another release of this software did."""
    size_bytes: int
    proof: Proof | None


class PlanStore:
    """All plans of one device. Nothing is touched before the first call."""

    def __init__(self, folder: Path) -> None:
        self._sealed = SealedFolder(folder)

    @property
    def folder(self) -> Path:
        """Where everything lies."""
        return self._sealed.folder

    # ------------------------------------------------------------------ plans

    def find(self, key: PlanKey) -> StoredPlan | None:
        """Return the plan of a key, or None when this device has not built it, or it was changed.

        Raises:
            PlanStoreError: The folder or its secret cannot be used.
            EngineMemoryError: There is not so much memory.
        """
        found = self._sealed.find(SealedKind.PLAN, key.canonical())
        if found is None:
            return None
        return StoredPlan(
            key=key,
            plan=found.content,
            sha256=found.header.sha256,
            proof=_proof(self._sealed.find(SealedKind.PROOF, key.canonical()), found.header),
        )

    @contextmanager
    def building(
        self, key: PlanKey, *, on_wait: Callable[[], bool] | None = None
    ) -> Iterator[StoredPlan | None]:
        """Be the only one, of all threads and processes, that builds the plan of a key.

        Args:
            key: A thread that builds it must not ask for it again.
            on_wait: Called about ten times a second while another one builds; False gives up.

        Yields:
            What another one has built meanwhile; None when it is this one's turn.

        Raises:
            PlanStoreError: The folder or its secret cannot be used.
            EngineMemoryError: There is not so much memory.
            EngineBuildError: ``on_wait`` gave up.
        """
        with self._sealed.making(key.canonical(), on_wait=on_wait):
            yield self.find(key)

    def keep(self, key: PlanKey, plan: bytes, proof: Proof | None = None) -> StoredPlan:
        """Keep a plan that was just built; one of before gives way, with all that is of it.

        Raises:
            PlanStoreError: The folder or the disk refuses, or the plan is empty or too large.
            PlanRejectedError: The proof is of another plan.
        """
        self._sealed.remove(SealedKind.RUNTIME, key.digest())
        header = self._sealed.keep(SealedKind.PLAN, key.canonical(), plan)
        if proof is not None:
            self.attach_proof(key, proof)
        return StoredPlan(key=key, plan=plan, sha256=header.sha256, proof=proof)

    def attach_proof(self, key: PlanKey, proof: Proof) -> None:
        """Keep what came out when the plan of a key was compared, also when it did not pass.

        Raises:
            PlanRejectedError: The proof is of another plan, or the plan is not here any more.
            PlanStoreError: The folder or the disk refuses.
        """
        headers = dict(self._sealed.headers(SealedKind.PLAN))
        header = headers.get(key.digest())
        if header is None or (proof.key_digest, proof.plan_sha256) != (key.digest(), header.sha256):
            raise PlanRejectedError(
                "the proof is of another plan than the one that is kept: build and compare again"
            )
        self._sealed.keep(SealedKind.PROOF, key.canonical(), proof.canonical())

    def quarantine(self, key: PlanKey, reason: str) -> None:
        """Move the plan of a key away: a library refused it, or it failed.

        Raises:
            PlanStoreError: The folder or the disk refuses.
        """
        self._sealed.quarantine(SealedKind.PLAN, key.canonical(), reason)
        self._sealed.remove(SealedKind.PROOF, key.digest())
        self._sealed.remove(SealedKind.RUNTIME, key.digest())

    def quarantined(self) -> tuple[PutAside, ...]:
        """Return the plans that were moved away, the oldest first; changes nothing.

        Raises:
            PlanStoreError: The folder cannot be used.
        """
        return self._sealed.put_aside(SealedKind.PLAN)

    def entries(self) -> tuple[PlanEntry, ...]:
        """Return every plan that is here, in no order that means anything; changes nothing.

        Raises:
            PlanStoreError: The folder or its secret cannot be used.
        """
        return tuple(
            self._entry(digest, header) for digest, header in self._sealed.headers(SealedKind.PLAN)
        )

    def remove(self, digest: str) -> bool:
        """Remove the plan of the key with this digest; say whether there was one.

        Raises:
            PlanStoreError: The folder or the disk refuses.
        """
        self._sealed.remove(SealedKind.PROOF, digest)
        self._sealed.remove(SealedKind.RUNTIME, digest)
        return self._sealed.remove(SealedKind.PLAN, digest)

    # ---------------------------------------------------------- timing caches

    def timing_cache(self, key: PlanKey) -> bytes:
        """Return the times that were measured on this platform; empty when there are none.

        Raises:
            PlanStoreError: The folder or its secret cannot be used.
        """
        found = self._sealed.find(SealedKind.TIMING, key.platform())
        return found.content if found is not None else b""

    def keep_timing_cache(self, key: PlanKey, cache: bytes) -> None:
        """Keep the times that were measured on this platform; those of before give way.

        Raises:
            PlanStoreError: The folder or the disk refuses, or the cache is empty or too large.
        """
        self._sealed.keep(SealedKind.TIMING, key.platform(), cache)

    # --------------------------------------------------------- runtime caches

    def runtime_cache(self, key: PlanKey) -> bytes:
        """Return what a library compiled when the plan of a key ran; empty when there is nothing.

        Raises:
            PlanStoreError: The folder or its secret cannot be used.
            EngineMemoryError: There is not so much memory.
        """
        found = self._sealed.find(SealedKind.RUNTIME, key.canonical())
        return found.content if found is not None else b""

    def keep_runtime_cache(self, key: PlanKey, cache: bytes) -> None:
        """Keep what a library compiled when the plan of a key ran; that of before gives way.

        Raises:
            PlanStoreError: The folder or the disk refuses, or the cache is empty or too large.
        """
        self._sealed.keep(SealedKind.RUNTIME, key.canonical(), cache)

    def quarantine_runtime_cache(self, key: PlanKey, reason: str) -> None:
        """Move what was compiled for a plan away: the library refused it, or it failed.

        Raises:
            PlanStoreError: The folder or the disk refuses.
        """
        self._sealed.quarantine(SealedKind.RUNTIME, key.canonical(), reason)

    def _entry(self, digest: str, header: SealedHeader | None) -> PlanEntry:
        if header is None:
            return PlanEntry(digest=digest, key=None, size_bytes=0, proof=None)
        return PlanEntry(
            digest=digest,
            key=_key_of(header),
            size_bytes=header.size_bytes,
            proof=_proof(self._sealed.look(SealedKind.PROOF, header.key), header),
        )


def _proof(found: SealedContent | None, plan: SealedHeader) -> Proof | None:
    if found is None:
        return None
    try:
        proof = Proof.parse(found.content)
    except ValueError:
        return None  # of another release of this software: compared again
    return proof if proof.plan_sha256 == plan.sha256 else None


def _key_of(header: SealedHeader) -> PlanKey | None:
    try:
        return PlanKey.parse(header.key)
    except ValueError:
        return None
