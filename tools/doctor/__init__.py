"""``edge-triage doctor``: what is wrong with this device, and what to do about it."""

from tools.doctor.command import doctor

__all__ = ["doctor"]
