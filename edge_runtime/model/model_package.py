"""The states of a model package on this device, from its installation to its retirement."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class PackageState(str, Enum):
    """Where a package stands; the worker runs what is ACTIVE, and what is SHADOW beside it."""

    INSTALLED = "INSTALLED"
    """On disk with the bytes that its maker sealed; nothing more is known of it."""
    VERIFIED = "VERIFIED"
    """Reproduces on this device what its maker saw; people have yet to approve it."""
    REFUSED = "REFUSED"
    """The verification failed; its files are gone, the reason is kept."""
    APPROVED = "APPROVED"
    SHADOW = "SHADOW"
    """Looks at every study like an active one, and tells nobody."""
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"


class PackageEvent(str, Enum):
    """What moves a package."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    APPROVED = "APPROVED"
    """The last approval that the settings ask for was given."""
    SHADOWED = "SHADOWED"
    ACTIVATED = "ACTIVATED"
    SUPERSEDED = "SUPERSEDED"
    """Another version of the same model became active; this one is what a rollback returns to."""
    ROLLED_BACK = "ROLLED_BACK"
    """The version of before became active again in its place."""
    RESTORED = "RESTORED"
    """A rollback made it active again."""
    RETIRED = "RETIRED"
    INSTALLED_AGAIN = "INSTALLED_AGAIN"
    """What was retired or refused begins anew: earlier approvals no longer count."""


IN_USE = frozenset({PackageState.SHADOW, PackageState.ACTIVE})
"""What the worker runs."""
WAITING = frozenset({PackageState.INSTALLED, PackageState.VERIFIED, PackageState.APPROVED})
"""On the way to be used; somebody has yet to do something."""

PACKAGE_TRANSITIONS: Mapping[tuple[PackageState, PackageEvent], PackageState] = MappingProxyType(
    {
        (PackageState.INSTALLED, PackageEvent.PASSED): PackageState.VERIFIED,
        (PackageState.INSTALLED, PackageEvent.FAILED): PackageState.REFUSED,
        (PackageState.VERIFIED, PackageEvent.APPROVED): PackageState.APPROVED,
        (PackageState.APPROVED, PackageEvent.SHADOWED): PackageState.SHADOW,
        (PackageState.APPROVED, PackageEvent.ACTIVATED): PackageState.ACTIVE,
        (PackageState.SHADOW, PackageEvent.ACTIVATED): PackageState.ACTIVE,
        (PackageState.ACTIVE, PackageEvent.SUPERSEDED): PackageState.RETIRED,
        (PackageState.ACTIVE, PackageEvent.ROLLED_BACK): PackageState.RETIRED,
        (PackageState.RETIRED, PackageEvent.RESTORED): PackageState.ACTIVE,
        (PackageState.INSTALLED, PackageEvent.RETIRED): PackageState.RETIRED,
        (PackageState.VERIFIED, PackageEvent.RETIRED): PackageState.RETIRED,
        (PackageState.APPROVED, PackageEvent.RETIRED): PackageState.RETIRED,
        (PackageState.SHADOW, PackageEvent.RETIRED): PackageState.RETIRED,
        (PackageState.ACTIVE, PackageEvent.RETIRED): PackageState.RETIRED,
        (PackageState.REFUSED, PackageEvent.INSTALLED_AGAIN): PackageState.INSTALLED,
        (PackageState.RETIRED, PackageEvent.INSTALLED_AGAIN): PackageState.INSTALLED,
    }
)
