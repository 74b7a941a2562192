"""What the tests of flash.py have in common: releases, boards, and cards made without a formatting tool."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from pathlib import Path

from card.board import Board
from card.fat import Fat

FIRMWARE = Path(__file__).parents[2] / "firmware_configs"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMw033yshvjqmVBfWzofYM0vnqrENHEfzR78EYKu29A0 me@laptop"
START = 8192 * 512
CMDLINE = "console=serial0,115200 console=tty1 root=PARTUUID=d89b055c-02 rootfstype=ext4 fsck.repair=yes rootwait\n"
CONFIG = "dtparam=audio=on\ncamera_auto_detect=1\n\n[cm5]\ndtoverlay=dwc2\n"
RASPBERRY = {
    "config.txt": CONFIG.encode(),
    "cmdline.txt": CMDLINE.encode(),
    "issue.txt": b"Raspberry Pi reference 2025-12-04\n",
    "user-data": b"#cloud-config\n",
    "meta-data": b"instance_id: rpios-image\n",
    "network-config": b"",
    "kernel8.img": bytes(range(256)) * 100,
    "bcm2710-rpi-zero-2-w.dtb": b"tree",
    "overlays/imx219.dtbo": b"overlay",
}
"""A boot partition of Raspberry Pi OS Trixie, as far as it matters."""


def board(**values: object) -> Board:
    """A board with what every board needs."""
    return Board(
        **{"hostname": "kitchen", "keys": (KEY,), "token": "t0ken", "instance_id": "edge-fer-kitchen-1", **values}
    )  # type: ignore[arg-type]


def make_fat(
    path: Path, *, bits: int = 16, megabytes: int = 16, files: dict[str, bytes] = RASPBERRY, mbr: bool = True
) -> Path:
    """An image with a FAT partition, empty clusters of 512 (FAT32) or 1024 bytes, and files in it."""
    per_cluster, reserved, copies = (1, 32, 2) if bits == 32 else (2, 1, 2)
    sectors = megabytes * 2048
    roots = 0 if bits == 32 else 512
    fat_size = -(-(sectors // per_cluster + 2) * bits // 8 // 512)
    boot = bytearray(512)
    boot[:3] = b"\xeb\x58\x90"
    struct.pack_into("<8sHBHBHHBHHHII", boot, 3, b"MSWIN4.1", 512, per_cluster, reserved, copies, roots, 0, 0xF8,
                     0 if bits == 32 else fat_size, 63, 255, START // 512, sectors)  # fmt: skip
    if bits == 32:
        struct.pack_into("<IHHIHH", boot, 36, fat_size, 0, 0, 2, 1, 6)
        boot[66], boot[71:90] = 0x29, b"bootfs     FAT32   "
    else:
        boot[38], boot[43:62] = 0x29, b"bootfs     FAT16   "
    boot[510:] = b"\x55\xaa"
    start = START if mbr else 0
    with path.open("wb") as file:
        file.truncate(start + sectors * 512 + (1 << 20))
        if mbr:
            file.seek(446)
            file.write(struct.pack("<B3xB3xII", 0, 0x0C, start // 512, sectors))
            file.write(struct.pack("<B3xB3xII", 0, 0x83, start // 512 + sectors, 2048))
            file.seek(510)
            file.write(b"\x55\xaa")
        file.seek(start)
        file.write(boot)
        if bits == 32:
            information = bytearray(512)
            information[:4], information[484:488], information[510:] = b"RRaA", b"rrAa", b"\x55\xaa"
            information[488:496] = b"\xff" * 8
            file.write(information)
            file.seek(start + 6 * 512)
            file.write(bytes(boot) + bytes(information))
        first = {16: struct.pack("<HH", 0xFFF8, 0xFFFF), 32: struct.pack("<III", 0x0FFFFFF8, 0x0FFFFFFF, 0x0FFFFFFF)}[
            bits
        ]
        for copy in range(copies):
            file.seek(start + (reserved + copy * fat_size) * 512)
            file.write(first)
        file.seek(start + (reserved + copies * fat_size) * 512)
        file.write(b"bootfs     \x08".ljust(32, b"\0"))
    with path.open("r+b") as file:
        Fat(file, start).replace(files)
    return path


def make_folder(path: Path, files: dict[str, bytes] = RASPBERRY) -> Path:
    """A boot partition as the system has it mounted."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def make_release(folder: Path, key: Path, codename: str = "trixie") -> Path:
    """A release as ``make release`` makes it, but for its wheels, which are empty."""
    spec = importlib.util.spec_from_file_location("release", FIRMWARE / "release.py")
    assert spec and spec.loader
    release = sys.modules.get("release") or importlib.util.module_from_spec(spec)
    sys.modules["release"] = release
    spec.loader.exec_module(release)
    (folder / "wheels").mkdir(parents=True)
    for name in ("edge_fer-1.2.0", "opencv_python_headless-4.14.0.94", "pip-26.2.1"):
        (folder / "wheels" / f"{name}-py3-none-any.whl").write_text(name)
    release.fill(folder, next(system for system in release.SYSTEMS if system.codename == codename), "1.2.0")
    release.sign(folder, key)
    return folder


def make_key(folder: Path) -> Path:
    """A key that signs."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / "signing"], check=True)
    return folder / "signing"
