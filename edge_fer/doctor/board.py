"""What only a Raspberry Pi tells: the memory that cameras share, heat and power."""

from __future__ import annotations

from collections.abc import Iterator

from edge_fer.board import BoardFiles, read_health
from edge_fer.doctor.machine import Finding, Machine

LEAST_CMA_MB = 64
"""Contiguous memory for camera buffers: four of a sensor's full image, and what the display holds."""

HOT_C = 80
"""From here on the firmware slows the processor down."""


def check_cma(machine: Machine) -> Iterator[Finding]:
    """Contiguous memory, of which libcamera takes its buffers."""
    memory = machine.meminfo_mb()
    total, free = memory.get("CmaTotal"), memory.get("CmaFree")
    if not machine.is_pi or total is None or free is None:
        return
    more = "echo dtoverlay=vc4-kms-v3d,cma-128 | sudo tee -a /boot/firmware/config.txt && sudo reboot"
    if total < LEAST_CMA_MB:
        wanted = any(camera.source.startswith("picamera") for camera in machine.settings.all_cameras)
        text = f"{total} MB of contiguous memory (CMA), and a camera on the ribbon cable needs some {LEAST_CMA_MB}:"
        yield Finding("red" if wanted else "yellow", text, more)
    else:
        yield Finding("green", f"{free} MB of {total} free (CMA)")


def check_power(machine: Machine) -> Iterator[Finding]:
    """Heat, and what slows the board down."""
    files = BoardFiles(
        temperature=machine.path("/sys/class/thermal/thermal_zone0/temp"),
        throttled=machine.path("/sys/devices/platform/soc/soc:firmware/get_throttled"),
    )
    health = read_health(files)
    throttled, heat = health["throttled"], health["temperature_c"]
    if throttled is None:
        return
    now = [one for one in throttled if "since boot" not in one]
    said = f"{', '.join(throttled)}; {heat} °C" if throttled else f"{heat} °C, never slowed down"
    look = "vcgencmd get_throttled"
    if "under-voltage" in now:
        text = f"{said}. The power supply is too weak: take the board's own, with a short cable, until this says 0x0:"
        yield Finding("red", text, look)
    elif now or (heat is not None and heat >= HOT_C):
        yield Finding("yellow", f"{said}. The board is hot: give it a heat sink or a fan; this tells it again:", look)
    elif throttled:
        yield Finding(
            "yellow", f"{said}. If it was under-voltage, take the board's own power supply; then:", "sudo reboot"
        )
    else:
        yield Finding("green", said)
