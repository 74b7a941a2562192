"""The cameras of this machine, as the kernel and libcamera know them. None is started, and no OpenCV is needed.

V4L2's structures and requests are those of linux/videodev2.h, the same in 32 and 64 bits.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_fer.libraries import Child, run_python

SYSFS = Path("/sys/class/video4linux")
"""Where the kernel lists the cameras."""

# Nodes of the Pi's own camera pipeline: picamera2 drives them, nobody can read an image from one alone.
_PI_PIPELINE = ("bcm2835-", "unicam", "rp1-", "pispbe", "rpivid", "rpi-")

_QUERYCAP, _ENUM_FMT, _ENUM_FRAMESIZES, _ENUM_FRAMEINTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
_CAPTURE = {0x0001: 1, 0x1000: 9}
"""By capability of a node that delivers images, the type of buffer to ask for: single- and multi-planar."""
_DISCRETE = 1
_MOST = 100
"""Formats of a camera, and sizes of a format, that are listed: a driver that does not end its list must not hold us."""

Ioctl = Callable[[int, int, bytearray], Any]

_PI_SCRIPT = """
import json
from picamera2 import Picamera2
print(json.dumps([{"number": one.get("Num", n), "model": one.get("Model", ""), "id": one.get("Id", "")}
                  for n, one in enumerate(Picamera2.global_camera_info())]))
"""


@dataclass(frozen=True)
class Size:
    """An image size that a camera gives.

    Attributes:
        width: in pixels.
        height: in pixels.
        fps: the most frames per second at that size; None where the camera does not tell.
    """

    width: int
    height: int
    fps: float | None


@dataclass(frozen=True)
class Format:
    """A pixel format of a camera.

    Attributes:
        fourcc: "YUYV", "MJPG", ...
        sizes: from small to large; of a camera that scales freely, its smallest and largest.
    """

    fourcc: str
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Holder:
    """A program that has a camera open.

    Attributes:
        pid: of the process.
        program: its name.
        unit: the systemd service that it belongs to; "" for none.
    """

    pid: int
    program: str
    unit: str


@dataclass(frozen=True)
class Camera:
    """A V4L2 camera.

    Attributes:
        device: "/dev/video0".
        name: what the camera calls itself.
        stable: its path in /dev/v4l, which stays the same when another is plugged in; None where there is none.
        formats: what it gives; empty where it could not be asked.
        holders: who has it open, as far as this user may see.
        refused: why it could not be asked, as the system says it: "Permission denied"; "" where it could.
    """

    device: str
    name: str
    stable: str | None = None
    formats: tuple[Format, ...] = ()
    holders: tuple[Holder, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class PiCamera:
    """A camera of libcamera, on the ribbon cable.

    Attributes:
        number: N of ``--camera picamera:N``.
        model: its sensor, "imx708".
    """

    number: int
    model: str


def list_cameras(root: Path = Path("/"), ioctl: Ioctl = fcntl.ioctl) -> list[Camera]:
    """Every V4L2 camera, by number: without the second node of a webcam, which has no images, and the Pi's pipeline.

    Args:
        root: where /sys, /dev and /proc are.
        ioctl: asks a driver.
    """
    nodes = sorted(_nodes(root), key=lambda node: int(node.name.removeprefix("video")))
    named = [(f"/dev/{node.name}", read_name(node / "name")) for node in nodes]
    held = find_holders(root) if named else {}
    names = [name for _, name in named]
    cameras = []
    for device, name in named:
        if name.startswith(_PI_PIPELINE):
            continue
        asked = _ask(root / device.lstrip("/"), ioctl)
        if asked is None:
            continue
        formats, refused = asked
        if refused and read_name(root / str(SYSFS).lstrip("/") / Path(device).name / "index") not in ("0", "?"):
            continue  # the second node of one device: most likely not for images, and it cannot be asked
        stable = _recommended(device, root, alone=names.count(name) == 1)
        cameras.append(Camera(device, name, stable, formats, held.get(device, ()), refused))
    return cameras


def has_pi_pipeline(root: Path = Path("/")) -> bool:
    """Whether the kernel has found a camera on a Raspberry Pi's ribbon cable, whoever may drive it."""
    return any(read_name(node / "name").startswith(("unicam", "rp1-cfe")) for node in _nodes(root))


def list_pi_cameras(run: Callable[[str], Child] | None = None) -> tuple[list[PiCamera], str]:
    """The cameras of libcamera, by way of picamera2 in a process of its own; and why there are none to be told.

    Those on USB are left out: they are V4L2's.

    Args:
        run: runs a script; None for ``libraries.run_python``.
    """
    done = (run or run_python)(_PI_SCRIPT)
    if not done.ok:
        return [], done.reason
    lines = done.stdout.strip().splitlines()
    try:
        found = json.loads(lines[-1])
        return [PiCamera(one["number"], one["model"]) for one in found if "/usb" not in one["id"]], ""
    except (ValueError, LookupError, TypeError):
        return [], "picamera2 gives no list"


def find_holders(root: Path = Path("/")) -> dict[str, tuple[Holder, ...]]:
    """By device, the processes that have it open. Those of other users are seen by root alone; this one is left out."""
    found: dict[str, tuple[Holder, ...]] = {}
    for process in sorted((root / "proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        if process.name == str(os.getpid()):
            continue
        for device in sorted(_open_devices(process / "fd")):
            found[device] = (*found.get(device, ()), _holder(process))
    return found


def _open_devices(descriptors: Path) -> set[str]:
    devices = set()
    with suppress(OSError):  # another user's, or it has ended
        for descriptor in descriptors.iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if re.fullmatch(r"/dev/(video|media)\d+", target):
                    devices.add(target)
    return devices


def _holder(process: Path) -> Holder:
    program, unit = "?", ""
    with suppress(OSError):
        program = _cleaned((process / "comm").read_bytes())
    with suppress(OSError):
        group = (process / "cgroup").read_text(encoding="utf-8", errors="replace")
        units = re.findall(r"/([\w.@:\\-]+\.service)(?=/|$)", group, re.MULTILINE)
        unit = "" if not units or units[-1].startswith("user@") else units[-1]
    return Holder(int(process.name), program, unit)


def _nodes(root: Path) -> Iterator[Path]:
    return (node for node in (root / str(SYSFS).lstrip("/")).glob("video*") if node.name[5:].isdecimal())


def read_name(file: Path) -> str:
    """A camera's name in a file of sysfs, as the camera sent it; "?" for one that is gone.

    The kernel cuts it to 31 bytes, in the middle of a letter too.
    """
    try:
        return _cleaned(file.read_bytes())
    except OSError:  # unplugged meanwhile
        return "?"


def _cleaned(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").strip("\0 \n")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def stable_names(device: Path | str, links: Path = Path("/dev/v4l")) -> list[str]:
    """The lasting names of a camera, which it keeps when others come and go: by its port, and by what it says it is.

    Args:
        device: "/dev/video0".
        links: where udev keeps these names.
    """
    there = Path(device).resolve()
    folders = (links / "by-path", links / "by-id")
    return [str(link) for folder in folders for link in sorted(folder.glob("*")) if link.resolve() == there]


def _recommended(device: str, root: Path, alone: bool) -> str | None:
    """The name by what it is, or, where two are alike and share that name, by where it is plugged in."""
    names = stable_names(root / device.lstrip("/"), root / "dev/v4l")
    by_id = [name for name in names if "/by-id/" in name]
    by_path = [name for name in names if "/by-path/" in name]
    chosen = [*by_id, *by_path] if alone else [*by_path, *by_id]
    return f"/{Path(chosen[0]).relative_to(root)}" if chosen else None


def _ask(node: Path, ioctl: Ioctl) -> tuple[tuple[Format, ...], str] | None:
    """Formats of a node, and why it could not be asked; None for one that delivers no images."""
    try:
        descriptor = os.open(node, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        return (), error.strerror or "no reason given"
    try:
        answer = bytearray(104)  # struct v4l2_capability
        ioctl(descriptor, _QUERYCAP, answer)
        (capabilities,) = struct.unpack_from("<I", answer, 88)
        kinds = [kind for capability, kind in _CAPTURE.items() if capabilities & capability]
        if not kinds:
            return None
        return tuple(_formats(descriptor, ioctl, kinds[0])), ""
    except OSError as error:
        return (), error.strerror or "no reason given"
    finally:
        os.close(descriptor)


def _formats(descriptor: int, ioctl: Ioctl, kind: int) -> Iterator[Format]:
    for index in range(_MOST):
        answer = bytearray(64)  # struct v4l2_fmtdesc
        struct.pack_into("<2I", answer, 0, index, kind)
        if not _answered(descriptor, ioctl, _ENUM_FMT, answer):
            return
        (code,) = struct.unpack_from("<4s", answer, 44)
        yield Format(_fourcc(code), tuple(_sizes(descriptor, ioctl, code)))


def _fourcc(code: bytes) -> str:
    """A format's name; the kernel marks big-endian ones by the highest bit (v4l2_fourcc_be)."""
    if code[3] & 0x80:
        return _cleaned(code[:3] + bytes([code[3] & 0x7F])) + "-BE"
    return _cleaned(code)


def _sizes(descriptor: int, ioctl: Ioctl, code: bytes) -> list[Size]:
    found: set[tuple[int, int]] = set()
    for index in range(_MOST):
        answer = bytearray(44)  # struct v4l2_frmsizeenum
        struct.pack_into("<I4s", answer, 0, index, code)
        if not _answered(descriptor, ioctl, _ENUM_FRAMESIZES, answer):
            break
        (kind,) = struct.unpack_from("<I", answer, 8)
        if kind == _DISCRETE:
            width, height = struct.unpack_from("<2I", answer, 12)
            found.add((width, height))
            continue
        least_w, most_w, _, least_h, most_h, _ = struct.unpack_from("<6I", answer, 12)
        found |= {(least_w, least_h), (most_w, most_h)}
        break
    return [Size(w, h, _most_fps(descriptor, ioctl, code, w, h)) for w, h in sorted(found)]


def _most_fps(descriptor: int, ioctl: Ioctl, code: bytes, width: int, height: int) -> float | None:
    rates = []
    for index in range(_MOST):
        answer = bytearray(52)  # struct v4l2_frmivalenum
        struct.pack_into("<I4s2I", answer, 0, index, code, width, height)
        if not _answered(descriptor, ioctl, _ENUM_FRAMEINTERVALS, answer):
            break
        kind, numerator, denominator = struct.unpack_from("<3I", answer, 16)  # the first interval is the shortest
        if numerator:
            rates.append(denominator / numerator)
        if kind != _DISCRETE:
            break
    return round(max(rates), 2) if rates else None


def _answered(descriptor: int, ioctl: Ioctl, request: int, answer: bytearray) -> bool:
    """Whether a list goes on: a driver ends it with EINVAL, or does not know the request at all."""
    try:
        ioctl(descriptor, request, answer)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY):
            return False
        raise
    return True
