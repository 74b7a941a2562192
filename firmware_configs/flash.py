#!/usr/bin/env python3
"""Prepares SD cards for Raspberry Pis that run edge-fer: ``python3 flash.py --help``.

Needs Python 3.9 or newer and nothing else: no package, not edge-fer itself.
"""

import sys

sys.dont_write_bytecode = True  # nothing of root's is left in the folder of who starts it with sudo

from card.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
