"""``python -m edge_fer``: the same as ``edge-fer``."""

import sys

from edge_fer.cli import main

if __name__ == "__main__":
    sys.exit(main())
