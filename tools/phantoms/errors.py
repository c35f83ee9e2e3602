"""Errors of the phantom generator. All are the caller's: the generator takes no outside input."""

from __future__ import annotations


class PhantomError(Exception):
    """Base of this package's errors."""


class PhantomUsageError(PhantomError):
    """The caller asked for a phantom that cannot be made; the text says what may be asked."""
