"""What may be done with a package: pure functions from what is known to what is recorded.

Each returns the records to write, in order, or raises ``NotAllowedError`` with what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edge_runtime.governance.errors import NotAllowedError
from edge_runtime.governance.persons import clean_line, clean_person, person_key
from edge_runtime.governance.records import (
    MAX_NOTE_CHARACTERS,
    Activated,
    Approved,
    AuditRecord,
    Installed,
    Released,
    Retired,
    RolledBack,
    Shadowed,
)
from edge_runtime.model.model_package import IN_USE, WAITING, PackageState
from edge_runtime.store.model_packages import StoredPackage

_DIGEST_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_MAY_BE_APPROVED = frozenset({PackageState.VERIFIED, PackageState.APPROVED, PackageState.SHADOW})
_MAY_START = frozenset({PackageState.VERIFIED, PackageState.APPROVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRules:
    """What the site's settings ask for."""

    approvals_required: int
    shadow_first: bool


def approvals_needed(package: StoredPackage, rules: ApprovalRules) -> int:
    """Return how many people must approve; what is no demonstration needs one in any case."""
    return max(rules.approvals_required, 0 if package.demonstration else 1)


def approvals_missing(package: StoredPackage, rules: ApprovalRules) -> int:
    """Return how many people have yet to approve."""
    return max(0, approvals_needed(package, rules) - len(package.approvals))


def choose(
    packages: Sequence[StoredPackage], reference: str, states: Collection[PackageState]
) -> StoredPackage:
    """Return the package that ``reference`` means: NAME, NAME@VERSION, or 8 digits of its digest.

    A name alone means the one package of that name that is in one of ``states``.

    Raises:
        NotAllowedError: it means none, or several.
    """
    meant = [package for package in packages if _is_meant(package, reference)]
    if not meant:
        raise NotAllowedError(
            f"no package here is called {reference[:80]!a}: `edge-triage models list` shows "
            "names, versions and digests"
        )
    fitting = [package for package in meant if package.state in states]
    if not fitting:
        known = ", ".join(f"{item.name}@{item.version} is {item.state.value}" for item in meant)
        wanted = " or ".join(sorted(state.value for state in states))
        raise NotAllowedError(f"{known}: that takes one that is {wanted}{_how_to_go_on(meant)}")
    if len(fitting) > 1:
        names = ", ".join(f"{item.name}@{item.version}" for item in fitting)
        raise NotAllowedError(f"several are meant: say which one ({names})")
    return fitting[0]


def _is_meant(package: StoredPackage, reference: str) -> bool:
    if reference in {package.name, f"{package.name}@{package.version}"}:
        return True
    return bool(_DIGEST_PREFIX.fullmatch(reference)) and package.digest.startswith(reference)


def _how_to_go_on(meant: Sequence[StoredPackage]) -> str:
    if all(item.state in {PackageState.RETIRED, PackageState.REFUSED} for item in meant):
        return "; install it again to begin anew"
    if any(item.state is PackageState.INSTALLED for item in meant):
        return "; install it again, so that it is verified"
    return ""


def decide_installation(
    packages: Sequence[StoredPackage], *, digest: str, name: str, version: str, demonstration: bool
) -> Installed | None:
    """Say whether a package is new here; None: it is here already.

    Raises:
        NotAllowedError: its name and version belong to another package.
    """
    for package in packages:
        if package.digest == digest:
            begins_anew = package.state in {PackageState.RETIRED, PackageState.REFUSED}
            if not begins_anew:
                return None
        elif (package.name, package.version) == (name, version):
            raise NotAllowedError(
                f"{name} {version} was installed with the digest {package.digest[:12]}, this one "
                f"has {digest[:12]}: a change of any byte is a new version; its maker must raise it"
            )
    return Installed(digest=digest, name=name, version=version, demonstration=demonstration)


def decide_approval(
    package: StoredPackage, rules: ApprovalRules, *, person: str, note: str
) -> Approved:
    """Add a person's approval.

    Raises:
        NotAllowedError: the person has approved already, or the name or the note cannot be used.
    """
    name = clean_person(person)
    key = person_key(name)
    if any(approval.person_key == key for approval in package.approvals):
        raise NotAllowedError(
            f"{name} has approved {package.name} {package.version} already: another person must"
        )
    is_enough = approvals_missing(package, rules) <= 1
    return Approved(
        digest=package.digest,
        person=name,
        person_key=key,
        note=clean_line(note, what="the note", limit=MAX_NOTE_CHARACTERS),
        is_last=is_enough and package.state is PackageState.VERIFIED,
    )


def choose_for_approval(packages: Sequence[StoredPackage], reference: str) -> StoredPackage:
    """Return the package that a person means to approve."""
    return choose(packages, reference, _MAY_BE_APPROVED)


def decide_shadow(
    packages: Sequence[StoredPackage], reference: str, rules: ApprovalRules
) -> tuple[AuditRecord, ...]:
    """Let an approved package look at studies beside the active one.

    Raises:
        NotAllowedError: approvals are missing, or another version is a shadow.
    """
    package = choose(packages, reference, _MAY_START)
    _check_approvals(package, rules)
    for other in packages:
        if other.name == package.name and other.state is PackageState.SHADOW:
            raise NotAllowedError(
                f"{other.name} {other.version} is a shadow already: activate or retire it first"
            )
    return (*_released(package), Shadowed(digest=package.digest))


def decide_activation(
    packages: Sequence[StoredPackage], reference: str, rules: ApprovalRules
) -> tuple[AuditRecord, ...]:
    """Make a package the one version of its model that decides; the active one is kept as fallback.

    Raises:
        NotAllowedError: approvals are missing, or it has not been a shadow where it must.
    """
    package = choose(packages, reference, _MAY_START | {PackageState.SHADOW})
    _check_approvals(package, rules)
    same = [item for item in packages if item.name == package.name]
    active = next((item for item in same if item.state is PackageState.ACTIVE), None)
    if rules.shadow_first and active is not None and package.state is not PackageState.SHADOW:
        raise NotAllowedError(
            f"models.shadow_first asks that {package.name} {package.version} runs as a shadow "
            f"first: `edge-triage models activate {package.name}@{package.version} --shadow`"
        )
    older = [
        item.digest
        for item in same
        if item.state is PackageState.RETIRED
        and not item.is_removed
        and (active is not None or not item.is_fallback)  # else nothing takes its place
    ]
    return (
        *_released(package),
        Activated(
            digest=package.digest,
            superseded=active.digest if active else None,
            removed=tuple(older),
        ),
    )


def decide_rollback(packages: Sequence[StoredPackage], name: str) -> RolledBack:
    """Make the version of before active again; the approvals that it had are enough.

    Raises:
        NotAllowedError: there is none.
    """
    same = [item for item in packages if item.name == name]
    fallback = next((item for item in same if item.is_fallback), None)
    if fallback is None:
        raise NotAllowedError(
            f"there is no earlier version of {name[:80]!a} to go back to: install the one "
            "that shall decide, or retire the active one"
        )
    active = next((item for item in same if item.state is PackageState.ACTIVE), None)
    return RolledBack(digest=fallback.digest, withdrawn=active.digest if active else None)


def decide_retirement(packages: Sequence[StoredPackage], reference: str) -> Retired:
    """Take a package out of use; the files of one that has decided studies are kept for a while.

    Raises:
        NotAllowedError: no such package is in use or waiting.
    """
    package = choose_for_retirement(packages, reference)
    return Retired(digest=package.digest, is_removed=package.state is not PackageState.ACTIVE)


def choose_for_retirement(packages: Sequence[StoredPackage], reference: str) -> StoredPackage:
    """Return the package that a person means to retire: by name the active one, if there is one."""
    active = [
        item for item in packages if item.state is PackageState.ACTIVE and reference == item.name
    ]
    return active[0] if active else choose(packages, reference, IN_USE | WAITING)


def _check_approvals(package: StoredPackage, rules: ApprovalRules) -> None:
    missing = approvals_missing(package, rules)
    if missing:
        who = "another person" if package.approvals else "a person"
        raise NotAllowedError(
            f"{package.name} {package.version} lacks {missing} of "
            f"{approvals_needed(package, rules)} approvals: {who} must run "
            f'`edge-triage models approve {package.name}@{package.version} --person "NAME"`'
        )


def _released(package: StoredPackage) -> tuple[Released, ...]:
    if package.state is not PackageState.VERIFIED:
        return ()
    return (Released(digest=package.digest),)
