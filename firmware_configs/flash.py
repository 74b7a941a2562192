#!/usr/bin/env python3
"""Prepares SD cards for Raspberry Pis that run edge-fer: ``python3 flash.py --help``.

Needs Python 3.9 or newer and nothing else: no package, not edge-fer itself.
"""

import sys

from card.cli import main

if __name__ == "__main__":
    sys.exit(main())
