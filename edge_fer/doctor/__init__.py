"""``edge-fer doctor``: what on this machine keeps edge-fer from working, each with the one command that mends it.

A check is a function that takes a ``Machine`` and gives findings. It reads files below the machine's root, asks a child
process about what may crash, and imports nothing heavy: the doctor works where NumPy and OpenCV do not.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_fer.doctor import board, devices, packages, system
from edge_fer.doctor.machine import Check, Finding, Machine
from edge_fer.errors import printable

CHECKS: dict[str, Check] = {
    "64-bit": system.check_bits,
    "Python": system.check_python,
    "C library": system.check_libc,
    "configuration": devices.check_configuration,
    "NumPy": packages.check_numpy,
    "OpenCV": packages.check_opencv,
    "runtime": packages.check_runtime,
    "model": packages.check_model,
    "detector": packages.check_detector,
    "camera": devices.check_camera,
    "Pi camera": devices.check_pi_camera,
    "Coral": devices.check_coral,
    "outputs": devices.check_outputs,
    "memory": system.check_memory,
    "memory limit": system.check_memory_limit,
    "disk": system.check_disk,
    "clock": system.check_clock,
    "camera memory": board.check_cma,
    "power": board.check_power,
}
"""By the name of its lines, in the order of the page."""


def examine(machine: Machine) -> Iterator[tuple[str, Finding]]:
    """Every finding with the name of its check, as soon as it is known. A check that has nothing to say gives none."""
    for name, check in CHECKS.items():
        try:
            yield from ((name, finding) for finding in check(machine))
        except Exception as error:  # files of a machine that nobody has seen: the other checks go on
            yield name, Finding("yellow", f"could not be checked: {printable(repr(error))[:200]}; please report it.")
