"""Keys, proofs and damaged files for tests of the store of plans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from engines.contract import Backend, Precision
from engines.plans.key import PlanKey
from engines.plans.proof import Proof
from engines.plans.sealed_folder import QUARANTINE, REASON
from engines.plans.store import PlanStore, StoredPlan

KEY = PlanKey(
    onnx_sha256="0a" * 32,
    backend=Backend.TENSORRT,
    library_version="10.3.0",
    compute_capability=(8, 7),
    gpu_name="Orin (nvgpu)",
    driver_version=12060,
    cuda_version="12.6",
    profiles="slabs 1x3x224x224 8x3x224x224 32x3x224x224",
    precision=Precision.FP16,
    flags=("STRONGLY_TYPED", "no TF32"),
)
OTHER_KEY = replace(KEY, precision=Precision.FP32)
PACKAGE_DIGEST = "0b" * 32
REFERENCE = "onnxruntime 1.23.2"
_DEADLINE_S = 60
OLD_PLAN, NEW_PLAN = b"an older plan " * 40, b"a plan " * 100


def proof_of(stored: StoredPlan) -> Proof:
    """A proof that has passed."""
    return Proof(
        key_digest=stored.key.digest(),
        plan_sha256=stored.sha256,
        package_digest=PACKAGE_DIGEST,
        reference=REFERENCE,
        golden_items=4,
        random_items=16,
        max_absolute=0.00123,
        cosine=0.9999987,
        flips=0,
        passed=True,
    )


def keep_proven(store: PlanStore, key: PlanKey, plan: bytes) -> StoredPlan:
    """Keep a plan and the proof of it."""
    stored = store.keep(key, plan)
    store.attach_proof(key, proof_of(stored))
    return stored


def plan_path(store: PlanStore, key: PlanKey) -> Path:
    """Where the plan of a key lies."""
    return store.folder / f"{key.digest()}.plan"


def proof_path(store: PlanStore, key: PlanKey) -> Path:
    """Where its proof lies."""
    return store.folder / f"{key.digest()}.proof"


def change_byte(path: Path, offset: int) -> None:
    """Flip one bit of a file, in its place."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def reasons(store: PlanStore) -> list[str]:
    """Why things are in quarantine, oldest first."""
    notes = sorted((store.folder / QUARANTINE).glob(f"*{REASON}"))
    return [json.loads(note.read_text("ascii"))["reason"] for note in notes]


def quarantined(store: PlanStore) -> list[Path]:
    """What is in quarantine, without the reasons."""
    folder = store.folder / QUARANTINE
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.endswith(REASON))


def names_in(folder: Path) -> list[str]:
    """The names of all that lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def run_script(script: str, *arguments: Path | str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in a process of its own, which may set limits to itself."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        timeout=_DEADLINE_S,
        check=False,
    )


def open_files() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def leftovers(store: PlanStore) -> list[str]:
    """Drafts and locks that nobody needs any more."""
    return sorted(path.name for path in store.folder.rglob(".*"))
