"""``python -m tools.gpu_check``: see ``tools.gpu_check.command``."""

from __future__ import annotations

import sys

from tools.gpu_check.command import main

if __name__ == "__main__":
    sys.exit(main())
