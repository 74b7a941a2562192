"""A manifest with which Raspberry Pi Imager 2 offers its own customization for an image that is not from its list.

Without it Imager takes a file for one that cannot be customized (``init_format`` is "none"), and ignores what a person
fills in. Format: doc/json-schema/os-list-schema.json of github.com/raspberrypi/rpi-imager.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

from card.image import CHUNK, Progress, measured

DEVICES = ("pi3-64bit", "pi4-64bit", "pi5-64bit")
"""Imager's tags of boards with a 64-bit processor; a Zero 2 W is a pi3-64bit."""


def manifest(path: Path, url: str, init_format: str, progress: Progress) -> str:
    """The manifest of an image, as JSON.

    Args:
        path: of the image, .img or packed.
        url: where Imager gets it from; "" for the file as it lies here.
        init_format: "cloudinit-rpi" for an image with Raspberry Pi OS' cloud-init, "cloudinit" for one with Debian's.
        progress: hears of the reading.

    Raises:
        FlashError: the image cannot be read.
    """
    with measured(path, progress) as image:
        size, sha256 = image.size, image.sha256
    packed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            packed.update(chunk)
    day = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc).date()
    entry = {
        "name": f"edge-fer ({path.name})",
        "description": "Facial-expression recognition as a service, on a 64-bit system",
        "icon": "",
        "url": url or path.resolve().as_uri(),
        "extract_size": size,
        "extract_sha256": sha256,
        "image_download_size": path.stat().st_size,
        "image_download_sha256": packed.hexdigest(),
        "release_date": day.isoformat(),
        "init_format": init_format,
        "devices": list(DEVICES),
        "architecture": "armv8",
    }
    return json.dumps({"os_list": [entry]}, indent=2) + "\n"
