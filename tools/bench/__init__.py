"""How fast this device is, and what it needs, on this machine: ``edge-triage bench``."""
