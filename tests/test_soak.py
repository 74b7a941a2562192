"""The endurance run counts what happens, and does not end with what it tries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "soak.py"


def test_a_short_run_counts_all_and_finds_nothing() -> None:
    arguments = ["--mutations", "6", "--frames", "20", "--cuts", "1"]
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ")[1:] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["6", "6", "6", "1", "20"]
    assert all(row[3:] == ["0", "0 |"] for row in rows)
    assert "Memory grew by" in done.stdout
