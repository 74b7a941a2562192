"""What edge-fer costs on a Cortex-A53, in instructions: ``make board-cost``. Needs no board.

    python benchmarks/board_cost.py

QEMU emulates a whole machine with one Cortex-A53, and with ``-icount shift=0`` its clock advances by a nanosecond for
each instruction: what ``edge-fer bench`` takes for milliseconds are millions of instructions, the kernel's included.
How long a board takes for them is another question: a real core waits for memory, and does two at a time if it can.

The machine starts from a RAM disk: Debian's kernel and Python, the wheels of requirements.lock for aarch64, and
edge_fer as it is in the checkout. All but the last is kept in build/board. Wants ``apt-get install qemu-system-arm
mmdebstrap``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.table import Table

from edge_fer.errors import EdgeFerError, UnavailableError, UsageError

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "board"
MODELS = ("accurate", "nano")
SUITE = "trixie"
PYTHON = "3.13"
"""Of that Debian; and of Raspberry Pi OS Trixie."""
PACKAGES = ("linux-image-arm64", "busybox-static", "python3-minimal", "libpython3-stdlib", "libstdc++6", "zlib1g")
UNUSED = ("usr/lib/modules", "usr/share/doc", "usr/share/locale", "usr/share/man", "var", "boot")
MEMORY_MB = 1536
"""The RAM disk is in it twice, for as long as it is unpacked."""
LIMIT_S = 3600.0
MARK = "board-cost:"
"""Begins the lines of the console that are results."""

INIT = """\
#!/usr/bin/busybox sh
busybox mkdir -p /proc /sys /dev /tmp
busybox mount -t proc proc /proc; busybox mount -t sysfs sysfs /sys; busybox mount -t devtmpfs devtmpfs /dev
export PATH=/usr/bin:/usr/sbin HOME=/tmp PYTHONPATH=/opt/edge-fer
python3 /guest.py {frames} {models} 2>&1
busybox poweroff -f
"""

GUEST = """\
import json, os, subprocess, sys, time

frames, *models = sys.argv[1:]
program = [sys.executable, "-m", "edge_fer"]
for model in models:
    os.environ["EDGE_FER_MODEL__PATH"] = model
    for _ in range(2):  # the first time Python compiles what it imports; on a device pip has done so
        begin = time.perf_counter_ns()
        run = subprocess.Popen([*program, "run", "--camera", "demo", "--output", "jsonl:-"], stdout=subprocess.PIPE)
        first = run.stdout.readline()
        start_ns = time.perf_counter_ns() - begin
        run.kill()
        run.communicate()
    bench = subprocess.run([*program, "bench", "--json", "--frames", frames], stdout=subprocess.PIPE)
    if first and bench.returncode == 0:
        print("board-cost:", json.dumps({"start_ns": start_ns, **json.loads(bench.stdout)}), flush=True)
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--frames", type=int, default=300, metavar="N", help="frames of the demo at most (default: 300)"
    )
    parser.add_argument("--model", nargs="+", default=list(MODELS), metavar="NAME", help="models of the package (both)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    try:
        if args.frames < 1:
            raise UsageError(f"--frames must be at least 1, not {args.frames}.")
        if unknown := [name for name in args.model if not (ROOT / "edge_fer" / "bundles" / f"{name}.tflite").is_file()]:
            raise UsageError(f"No model {unknown[0]!r} is in the package.")
        results = results_of(emulate(*base(CACHE), args.frames, args.model), args.model)
    except EdgeFerError as error:
        print(f"board_cost: {error}", file=sys.stderr)
        return error.exit_code
    date = datetime.now(UTC).date().isoformat()
    if args.json:
        print(json.dumps({"date": date, "unit": "million instructions, emulated", "models": results}))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(f"{date}: Cortex-A53, emulated; N = {next(iter(results.values()))['frames']} frames of the demo")
    console.print(table_of(results))
    return 0


def base(folder: Path) -> tuple[Path, Path]:
    """The kernel and a RAM disk with all but edge_fer; from the folder where they have been made before.

    Args:
        folder: is made where it is missing.

    Raises:
        UnavailableError: a program or a package cannot be had.
    """
    for program, package in (("qemu-system-aarch64", "qemu-system-arm"), ("mmdebstrap", "mmdebstrap")):
        if shutil.which(program) is None:
            raise UnavailableError(f"{program} is not installed: sudo apt-get install {package}.")
    lock = (ROOT / "requirements.lock").read_bytes()
    key = hashlib.sha256(lock + repr((SUITE, PYTHON, PACKAGES, UNUSED)).encode()).hexdigest()[:16]
    kernel, system = folder / f"{key}.vmlinuz", folder / f"{key}.cpio"
    if kernel.is_file() and system.is_file():
        return kernel, system
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch) / "root"
        print("board_cost: making a RAM disk for aarch64 ...", file=sys.stderr)
        mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
        include = f"--include={','.join(PACKAGES)}"
        _run(["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64", include, SUITE, str(root), mirror])
        glibc = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
        wheels = [
            "--only-binary=:all:",
            "--no-deps",
            "--no-compile",
            "--implementation=cp",
            f"--python-version={PYTHON}",
        ]
        target = f"--target={root / 'opt' / 'edge-fer'}"
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            target,
            *wheels,
            *glibc,
        ]
        _run([*pip, "--platform=manylinux2014_aarch64", "--require-hashes", "-r", str(ROOT / "requirements.lock")])
        (image,) = (root / "boot").glob("vmlinuz-*")
        shutil.copy(image, Path(scratch) / "vmlinuz")
        for unused in UNUSED:
            shutil.rmtree(root / unused, ignore_errors=True)
        for name in ("bin", "sbin", "lib"):
            if not (root / name).exists():
                (root / name).symlink_to(f"usr/{name}")  # base-files makes these when it is configured
        with (Path(scratch) / "cpio").open("wb") as archive:
            write_cpio(root, archive)
        (Path(scratch) / "vmlinuz").replace(kernel)
        (Path(scratch) / "cpio").replace(system)
    return kernel, system


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "it says nothing").splitlines()[-1]
        raise UnavailableError(f"{Path(command[0]).name} failed; it wants Debian's packages and PyPI: {last}")


def write_cpio(folder: Path, archive: BinaryIO) -> None:
    """Write a folder as the kernel takes a RAM disk: format "newc" of cpio, all owned by root.

    The kernel's Documentation/driver-api/early-userspace/buffer-format.rst; archives may stand one behind another.
    """
    for number, path in enumerate(sorted(folder.rglob("*")), 1):
        about = path.lstat()
        content = b""
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        elif not path.is_dir():
            continue  # devices: the kernel makes its own
        _write_entry(archive, path.relative_to(folder).as_posix(), number, about.st_mode, content)
    _write_entry(archive, "TRAILER!!!", 0, 0, b"")


def _write_entry(archive: BinaryIO, name: str, number: int, mode: int, content: bytes) -> None:
    encoded = os.fsencode(name) + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + "".join(f"{field:08X}" for field in fields).encode() + encoded
    archive.write(header + b"\0" * (-len(header) % 4) + content + b"\0" * (-len(content) % 4))


def emulate(kernel: Path, system: Path, frames: int, models: Sequence[str]) -> str:
    """Boot, measure and power off; returns what the machine wrote to its console.

    Args:
        kernel: as ``base`` gives it.
        system: likewise.
        frames: of the demo at most.
        models: names of models of the package.

    Raises:
        UnavailableError: QEMU does not start, or takes more than ``LIMIT_S``.
    """
    with tempfile.TemporaryDirectory(dir=system.parent) as scratch:
        ours, disk = Path(scratch) / "ours", Path(scratch) / "disk"
        shutil.copytree(
            ROOT / "edge_fer", ours / "opt" / "edge-fer" / "edge_fer", ignore=shutil.ignore_patterns("__pycache__")
        )
        (ours / "init").write_text(INIT.format(frames=frames, models=" ".join(models)), encoding="utf-8")
        (ours / "init").chmod(0o755)
        (ours / "guest.py").write_text(GUEST, encoding="utf-8")
        with disk.open("wb") as archive:
            with system.open("rb") as before:
                shutil.copyfileobj(before, archive)
            write_cpio(ours, archive)
        print("board_cost: emulating; some minutes ...", file=sys.stderr)
        machine = ["-M", "virt", "-cpu", "cortex-a53", "-smp", "1", "-m", str(MEMORY_MB), "-nic", "none"]
        clock = ["-icount", "shift=0,sleep=off", "-nographic", "-no-reboot"]
        files = ["-kernel", str(kernel), "-initrd", str(disk), "-append", "console=ttyAMA0 quiet panic=-1"]
        try:
            done = subprocess.run(
                ["qemu-system-aarch64", *machine, *clock, *files],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"QEMU was not done after {LIMIT_S:.0f} s: try fewer --frames.") from None
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip() or "it says nothing").splitlines()[-1]
        raise UnavailableError(f"QEMU failed: {last}")
    return done.stdout.decode(errors="replace")


def results_of(console: str, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Millions of instructions by model and stage, out of what the machine wrote to its console.

    Raises:
        UnavailableError: the result of a model is not among it.
    """
    lines = [line.partition(MARK)[2] for line in console.splitlines() if MARK in line]
    results: dict[str, dict[str, Any]] = {}
    for figures in map(json.loads, lines):
        results[figures["model"]] = {
            "frames": figures["frames"],
            "stages": {stage: times["mean"] for stage, times in figures["stages_ms"].items()},
            "frame": figures["frame_ms"]["mean"],
            "frame_p95": figures["frame_ms"]["p95"],
            "first_event": round(figures["start_ns"] / 1e6),
            "rss_peak_mb": figures["rss_peak_mb"],
            "versions": {name: figures[name] for name in ("edge_fer", "python", "opencv", "runtime")},
        }
    if missing := [model for model in models if model not in results]:
        last = (console.strip() or "nothing").splitlines()[-1]
        raise UnavailableError(f"The emulated board gave no result for {missing[0]}; it ended with: {last.strip()}")
    return results


def table_of(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Models side by side."""
    table = Table("million instructions, emulated", *results)
    stages = [stage for stage in next(iter(results.values()))["stages"] if stage != "decode"]
    for stage in stages:
        table.add_row(f"{stage}, a frame", *(f"{one['stages'][stage]:.2f}" for one in results.values()))
    table.add_row("a frame", *(f"{one['frame']:.1f}" for one in results.values()))
    table.add_row("a frame, p95", *(f"{one['frame_p95']:.1f}" for one in results.values()))
    table.add_row("start to first event", *(f"{one['first_event']:,}" for one in results.values()))
    table.add_row("peak RSS, MB", *(f"{one['rss_peak_mb']:.1f}" for one in results.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
