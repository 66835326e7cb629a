#!/usr/bin/env python3
"""Fetches, builds and checks what autoglm-edge needs besides its own code. `python3 models/setup.py --help`.

Runs on a bare Python 3.11 or newer; everything else it needs it fetches itself. Read autoglm_models/cli.py next.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "error: Python 3.11 or newer is needed, this is %d.%d\nhint: Debian 12 has it as python3" % sys.version_info[:2]
    )

from autoglm_models.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
