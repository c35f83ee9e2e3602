"""``python -m tools`` is the ``edge-triage`` command."""

from tools.cli import main

main()
