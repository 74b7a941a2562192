"""What may take the process with it is first tried in a child process: models that somebody forged, other libraries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

_WRAPPER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    exec(sys.argv[1])
except MemoryError:
    sys.exit(3)
except Exception:
    pass  # who comes after meets it again, and says it better
"""

TRIAL_S = 60.0
"""More than the slowest board takes to load all libraries and run a self-test."""
SPARE_BYTES = 1 << 30
"""Address space that a trial may take beyond what its libraries have: `limit_memory`."""


def why_it_dies(script: str, stdin: bytes = b"", timeout_s: float = TRIAL_S) -> str | None:
    """Run a script in a process of its own, with the same packages.

    Args:
        script: Python. What it raises is ignored, but for MemoryError.
        stdin: what it can read there.
        timeout_s: it is killed after that.

    Returns:
        What it does, as in "IT crashes (SIGSEGV)"; None where nothing.
    """
    paths = [os.environ.get("PYTHONPATH", ""), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-c", _WRAPPER, script]
    try:
        code = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, env=environment).returncode
    except subprocess.TimeoutExpired:
        return f"is not ready after {timeout_s:g} s"
    if code == 3:
        return "wants too much memory"
    return f"crashes ({signal.Signals(-code).name})" if code < 0 else None


def limit_memory() -> None:
    """In a trial, after all libraries are loaded: what then asks for more than ``SPARE_BYTES`` gets a MemoryError."""
    import resource
    from pathlib import Path

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
