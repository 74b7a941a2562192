"""The system below edge-fer: processor, Python, C library, memory, disk, clock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edge_fer.doctor.machine import Finding, Machine

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)
OLDEST_GLIBC = (2, 28)
"""What the wheels of OpenCV and LiteRT are built for."""

NEEDED_MB = 160
"""Memory of a run, with room: peak RSS is some 100 MB (docs/benchmarks.md)."""

_NEW_CARD = "rpi-imager"
"""Writes Raspberry Pi OS on a card; its package is in Debian."""


def check_bits(machine: Machine) -> Iterator[Finding]:
    """LiteRT and OpenCV have wheels for 64-bit x86 and ARM; for 32 bits there is the older tflite-runtime."""
    if machine.bits == 64 and machine.arch in ("aarch64", "x86_64"):
        yield Finding("green", f"{machine.arch}, {machine.board or 'no Raspberry Pi'}")
    elif machine.bits == 64:
        yield Finding("yellow", f"{machine.arch}: LiteRT and OpenCV have no wheels for it and must be built here.")
    elif machine.run_python("import tflite_runtime.interpreter").ok:
        yield Finding(
            "yellow", "32-bit, with the older tflite-runtime: it works, slower; 64-bit systems are tested more."
        )
    else:
        kernel = ", although the processor could do more" if machine.arch in ("aarch64", "x86_64") else ""
        text = f"This system is 32-bit{kernel}, and LiteRT is 64-bit alone. Write Raspberry Pi OS (64-bit) on a card:"
        yield Finding("red", text, _NEW_CARD)


def check_python(machine: Machine) -> Iterator[Finding]:
    """Wheels are for some versions of Python."""
    version = ".".join(map(str, machine.python))
    if machine.python < OLDEST_PYTHON:
        text = f"Python {version} is too old; 3.11 comes with Raspberry Pi OS Bookworm and Debian 12. Write a new card:"
        yield Finding("red", text, _NEW_CARD)
    elif machine.python > NEWEST_PYTHON:
        newest = ".".join(map(str, NEWEST_PYTHON))
        yield Finding("yellow", f"Python {version} is newer than what was tested, {newest}; wheels may be missing.")
    else:
        where = machine.prefix if machine.in_venv else "no virtual environment"
        yield Finding("green", f"{version} ({where})")


def check_libc(machine: Machine) -> Iterator[Finding]:
    """Wheels are for glibc."""
    name, version = machine.libc
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if name != "glibc":
        text = "This system has another C library than glibc (Alpine has musl), and LiteRT needs it. In a container:"
        yield Finding("red", text, "docker pull python:3.13-slim-trixie")
    elif numbers < OLDEST_GLIBC:
        text = f"glibc {version} is older than the 2.28 that OpenCV and LiteRT are built for. Write a new card:"
        yield Finding("red", text, _NEW_CARD)
    else:
        yield Finding("green", f"glibc {version}")


def check_memory(machine: Machine) -> Iterator[Finding]:
    """Memory that is there, and free."""
    memory = machine.meminfo_mb()
    total, free = memory.get("MemTotal"), memory.get("MemAvailable")
    if total is None or free is None:
        return
    swap = memory.get("SwapFree", 0)
    if free + swap < NEEDED_MB:
        text = f"{free} MB of {total} are free, and edge-fer needs some {NEEDED_MB}. Without a desktop there is more:"
        yield Finding("red", text, "sudo systemctl isolate multi-user.target")
    elif free < NEEDED_MB:
        text = f"{free} MB of {total} are free; the rest will be swapped. Without a desktop there is more:"
        yield Finding("yellow", text, "sudo systemctl isolate multi-user.target")
    else:
        yield Finding("green", f"{free} MB of {total} free")


def check_memory_limit(machine: Machine) -> Iterator[Finding]:
    """The limit of the group of processes that this one belongs to; and whether the kernel keeps limits at all."""
    group = next((line[3:] for line in machine.read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    place = Path("/sys/fs/cgroup", group.lstrip("/"))
    limits = [machine.read(str(folder / "memory.max")).strip() for folder in (place, *place.parents)]
    limits.append(machine.read("/sys/fs/cgroup/memory/memory.limit_in_bytes").strip())  # version 1
    known = [int(limit) >> 20 for limit in limits if limit.isdecimal()]
    unit = re.search(r"/([^/]+\.service)(?=/|$)", group)
    least = min(known, default=1 << 30)
    if least < NEEDED_MB:
        cure = f"sudo systemctl set-property {unit[1]} MemoryMax=256M" if unit else "docker update --memory 256m NAME"
        yield Finding("red", f"At most {least} MB for this group of processes; edge-fer needs some {NEEDED_MB}:", cure)
    elif machine.is_pi and "memory" not in machine.read("/sys/fs/cgroup/cgroup.controllers").split():
        text = (
            "The board's firmware switches the memory controller off, so that MemoryMax= of the service does nothing:"
        )
        yield Finding("yellow", text, "sudo sed -i '1 s/$/ cgroup_enable=memory/' /boot/firmware/cmdline.txt")
    elif least < 1 << 20:
        yield Finding("green", f"{least} MB")


def check_disk(machine: Machine) -> Iterator[Finding]:
    """Room on the disk of the system, where logs, caches and updates go."""
    free_mb = machine.free_bytes(machine.root) >> 20
    if free_mb < 50:
        yield Finding(
            "red", f"The disk has {free_mb} MB left. The packages that apt keeps can go:", "sudo apt-get clean"
        )
    elif free_mb < 500:
        yield Finding(
            "yellow", f"The disk has {free_mb} MB left. Old logs can go:", "sudo journalctl --vacuum-size=50M"
        )
    else:
        yield Finding("green", f"{free_mb / 1024:.1f} GB free")


def check_clock(machine: Machine) -> Iterator[Finding]:
    """Events carry times, and certificates have dates."""
    set_clock = "sudo timedatectl set-ntp true"
    installed_s = Path(__file__).stat().st_mtime
    synchronized = machine.is_synchronized()
    if machine.now_s < installed_s - 86_400:
        yield Finding(
            "red", "The clock stands before the day on which edge-fer was installed. Let it be set:", set_clock
        )
    elif synchronized is False:
        text = "The clock follows no other, so that the times of events may be wrong. Let it be set by the network:"
        yield Finding("yellow", text, set_clock)
    else:
        yield Finding("green", "synchronized" if synchronized else "whether it is synchronized cannot be told here")
