"""``python -m export`` is ``python export/quantize.py``."""

import sys

from export.quantize import main

sys.exit(main())
