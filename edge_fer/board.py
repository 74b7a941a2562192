"""What a board tells about itself: which it is, how hot, whether it is slowed down, how much memory is used."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_fer.version import __version__

THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT = 16  # the same four, shifted: has happened since boot


@dataclass(frozen=True)
class BoardFiles:
    """Where a board tells about itself. Linux everywhere; the model and the throttling on a Raspberry Pi alone."""

    model: Path = Path("/proc/device-tree/model")
    cpuinfo: Path = Path("/proc/cpuinfo")
    status: Path = Path("/proc/self/status")
    temperature: Path = Path("/sys/class/thermal/thermal_zone0/temp")
    throttled: Path = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")


BOARD = BoardFiles()


def describe_machine(files: BoardFiles = BOARD) -> dict[str, Any]:
    """Board, processor and versions, for people who compare figures."""
    import cv2  # here: heat and throttling are asked where no library loads

    from edge_fer.model.litert import runtime_name

    processor = [line.partition(":")[2].strip() for line in _read(files.cpuinfo).splitlines() if "model name" in line]
    return {
        "board": _read(files.model).rstrip("\0\n") or platform.machine(),
        "cpu": processor[0] if processor else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "runtime": runtime_name(),
        "edge_fer": __version__,
    }


def read_health(files: BoardFiles = BOARD) -> dict[str, Any]:
    """Heat, throttling and memory now; None where the board does not tell.

    Returns:
        ``temperature_c``; ``throttled``: what slows the board down now, and with "since boot" what did before;
        ``rss_peak_mb``: the most memory that this process has held, in MB of a million bytes.
    """
    temperature, bits = _read(files.temperature).strip(), _read(files.throttled).strip()
    peak = [line.split()[1] for line in _read(files.status).splitlines() if line.startswith("VmHWM:")]
    return {
        "temperature_c": round(int(temperature) / 1000, 1) if temperature else None,
        "throttled": _throttling(int(bits, 16)) if bits else None,
        "rss_peak_mb": round(int(peak[0]) * 1024 / 1e6, 1) if peak else None,
    }


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Memory that this process holds now."""
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _read(path: Path) -> str:
    # A sensor that is missing or refuses is not worth an error.
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _throttling(bits: int) -> list[str]:
    now = [text for bit, text in THROTTLE_BITS.items() if bits >> bit & 1]
    return now + [f"{text} since boot" for bit, text in THROTTLE_BITS.items() if bits >> bit + _SINCE_BOOT & 1]
