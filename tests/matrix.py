"""Run the tests that train, with ten seeds and on a processor set up in many ways, and print what each way gave.

    python tests/matrix.py            # all of it
    python tests/matrix.py "one core" # only the ways whose names begin so

The exit code is 1 if any way has a failed test. Random order needs ``pip install pytest-randomly``.
"""

from __future__ import annotations

import datetime
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BUSY = "while True: pass"
ALL_CORES = os.sched_getaffinity(0)


class Way(NamedTuple):
    """How to run the tests."""

    name: str
    environment: Mapping[str, str] = MappingProxyType({})
    arguments: tuple[str, ...] = ("-p", "no:randomly")
    cores: int = 2
    load: int = 0  # busy processes beside


WAYS = [
    *(Way(f"seed {seed}", {"TEST_SEED": str(seed)}) for seed in range(1, 11)),
    Way("oneDNN on", {"TF_ENABLE_ONEDNN_OPTS": "1"}),
    Way("oneDNN on, AVX2", {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Way("oneDNN off, AVX2", {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Way("one core", cores=1),
    *(Way(f"order {seed}", arguments=(f"--randomly-seed={seed}",)) for seed in (1, 2, 3)),
    Way("under load", load=4),
]


def processor() -> str:
    """What the kernel calls it."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def run(way: Way) -> str:
    """How many tests passed and failed in that way."""
    environment = {name: value for name, value in os.environ.items() if name not in {"TEST_SEED", "ONEDNN_MAX_CPU_ISA"}}
    environment |= {"TF_ENABLE_ONEDNN_OPTS": "0", **way.environment}
    cores = set(sorted(ALL_CORES)[: way.cores])
    command = [sys.executable, "-m", "pytest", "-m", "trains", *way.arguments, "tests/training", "tests/export"]
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(way.load)]
    try:
        os.sched_setaffinity(0, cores)
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    finally:
        os.sched_setaffinity(0, ALL_CORES)
        for process in busy:
            process.kill()
            process.wait()
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr)
    if done.returncode < 0:
        return f"died of signal {-done.returncode}"
    return ", ".join(re.findall(r"\d+ (?:passed|failed|errors?)", done.stdout[-300:]))


def main() -> int:
    """Print the table; returns the exit code."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    print(f"{processor()}, {len(ALL_CORES)} cores, Python {platform.python_version()}, {datetime.date.today()}\n")
    print("| way | result |\n|---|---|", flush=True)
    bad = False
    for way in (way for way in WAYS if way.name.startswith(wanted)):
        if way.name.startswith("order") and not importlib.util.find_spec("pytest_randomly"):
            print(f"| {way.name} | not run: needs pytest-randomly |", flush=True)
            continue
        result = run(way)
        bad |= "passed" not in result or "failed" in result or "error" in result
        print(f"| {way.name} | {result} |", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
