"""``edge-fer cameras``: what is there, under which name, and what it sees."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_fer.cli.verbs import Verbs, add_verb
from edge_fer.errors import UsageError

EXAMPLES = """examples:
  edge-fer cameras                       the cameras, the names that stay theirs, and who holds them
  edge-fer cameras --json
  edge-fer cameras --snapshot 0          snapshot.png: what camera 0 sees, the faces in it, and the crops the model saw
  edge-fer cameras --snapshot picamera:0 --output porch.jpg
"""

SHOWN_FORMATS, SHOWN_SIZES = 4, 4
"""Of formats that have the same sizes, and of sizes, the largest; --json has them all."""


def add_cameras(verbs: Verbs) -> None:
    """Add the verb."""
    cameras = add_verb(verbs, "cameras", "list the cameras of this machine, or show what one sees", EXAMPLES)
    cameras.add_argument("--json", action="store_true", help="print JSON")
    cameras.add_argument(
        "--snapshot", metavar="SOURCE", help="write one picture of a camera: 0, or whatever run --camera takes"
    )
    cameras.add_argument(
        "--output", metavar="FILE", type=Path, help="the picture (default: snapshot.png; one that is there stays)"
    )
    cameras.set_defaults(act=_cameras)


def _cameras(args: argparse.Namespace) -> None:
    if args.snapshot is not None:
        _snapshot(args)
        return
    if args.output is not None:
        raise UsageError(
            "--output names the picture of --snapshot: write `edge-fer cameras --snapshot 0 --output FILE`."
        )

    from edge_fer.cameras import list_cameras, list_pi_cameras

    usb = list_cameras()
    pi, reason = list_pi_cameras() if find_spec("picamera2") else ([], "picamera2 is not visible from this Python")
    if args.json:
        print(json.dumps([*map(_v4l2_table, usb), *map(_pi_table, pi)], indent=2))
        return
    if usb or pi:
        _print_table(usb, pi)
    _print_advice(usb, pi, reason)


def _v4l2_table(camera: Any) -> dict[str, Any]:
    first = {"camera": camera.stable or camera.device, "device": camera.device}
    return first | dataclasses.asdict(camera) | {"is_0": camera.device == "/dev/video0"}


def _pi_table(camera: Any) -> dict[str, Any]:
    return {"camera": f"picamera:{camera.number}", "name": camera.model, "is_0": False}


def _print_table(usb: Sequence[Any], pi: Sequence[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("camera", "name", "formats and sizes", "held by")
    for camera in usb:
        zero = " (0)" if camera.device == "/dev/video0" else ""
        table.add_row(f"{camera.device}{zero}", camera.name, _formats(camera), _holders(camera.holders))
    for camera in pi:
        table.add_row(f"picamera:{camera.number}", camera.model, "any, by picamera2", "")
    Console(markup=False, highlight=False).print(table)
    names = [f"  --camera {camera.stable}  ({camera.name})" for camera in usb if camera.stable]
    if names:
        print("Names that stay when another camera is plugged in:", *names, sep="\n")


def _formats(camera: Any) -> str:
    if camera.refused == "Permission denied":
        return "no permission: `sudo usermod -aG video $USER`, then log in again"
    if camera.refused == "No such file or directory":
        return f"not in /dev: a container must be given it (`--device {camera.device}`)"
    if camera.refused:
        return f"cannot be asked: {camera.refused}"
    alike: dict[str, list[str]] = {}
    for one in camera.formats:
        alike.setdefault(_sizes(one.sizes), []).append(one.fourcc)
    return "\n".join(f"{_first(names, SHOWN_FORMATS, 'more')}  {sizes}" for sizes, names in alike.items()) or "not told"


def _sizes(sizes: Sequence[Any]) -> str:
    rates = [f"{one.width}x{one.height}" + (f"@{one.fps:g}" if one.fps else "") for one in reversed(sizes)]
    return _first(rates, SHOWN_SIZES, "smaller")


def _first(texts: Sequence[str], most: int, rest: str) -> str:
    more = f" and {len(texts) - most} {rest}" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _holders(holders: Sequence[Any]) -> str:
    return "\n".join(f"{one.program} (pid {one.pid}{', ' + one.unit if one.unit else ''})" for one in holders)


def _print_advice(usb: Sequence[Any], pi: Sequence[Any], reason: str) -> None:
    """What a person may want to know next."""
    if usb:
        if all(camera.device != "/dev/video0" for camera in usb):
            print("--camera 0 would be /dev/video0, which is none of these: give a name from the list.")
        if os.geteuid() != 0:
            print("Programs of other users that hold a camera are seen by root alone: `sudo edge-fer cameras`.")
    else:
        if Path("/sys/class/video4linux").is_dir():
            print("No USB or V4L2 camera. Plug one in; `lsusb` must list it, and `sudo dmesg | tail` says why not.")
        else:
            print(
                "No USB or V4L2 camera: this kernel has no video devices at all. Plug a camera in; a container or a "
                "virtual machine must be given it (`docker run --device /dev/video0 ...`)."
            )
    if not pi:
        why = reason or "libcamera finds none; check both ends of the cable"
        print(
            f"No camera on a Raspberry Pi's ribbon cable: {why}. On a Pi, `rpicam-hello --list-cameras` must list it, "
            "and `edge-fer doctor` says what is missing."
        )
    if not usb and not pi:
        print("A camera in the network is --camera rtsp://... or http://.... Without any: edge-fer run --camera demo")
    else:
        print("What one sees: edge-fer cameras --snapshot 0, or one of the names above.")


def _snapshot(args: argparse.Namespace) -> None:
    from edge_fer.layers import load_settings
    from edge_fer.snapshot import compose, take_snapshot, why_no_face, write_picture

    settings = load_settings(None, os.environ, {"camera.source": args.snapshot})
    snapshot = take_snapshot(settings)
    path = write_picture(compose(snapshot), args.output or Path("snapshot.png"))
    height, width = snapshot.frame.gray.shape
    advice = "" if snapshot.faces else why_no_face(snapshot.frame, settings.detector.min_face_px)
    if args.json:
        faces = [
            {
                "box_px": [round(side, 1) for side in (face.box.x, face.box.y, face.box.w, face.box.h)],
                "expression": face.expression,
                "confidence": round(face.confidence, 4),
                "uncertain": face.uncertain,
                "quality": dataclasses.asdict(face.quality),
            }
            for face in snapshot.faces
        ]
        table = {"file": str(path), "width": width, "height": height, "camera": snapshot.frame.stream}
        print(json.dumps({**table, "faces": faces, "advice": advice}))
        return
    print(f"{path}: {width}x{height} of {snapshot.frame.stream}, faces: {len(snapshot.faces)}.")
    for face in snapshot.faces:
        doubt = f", uncertain: {face.uncertain}" if face.uncertain else ""
        quality = f"{face.quality.size_px} px, brightness {face.quality.brightness:.2f}, blur {face.quality.blur:.0f}"
        print(f"  face {face.track}  {face.expression} {face.confidence:.0%}  ({quality}{doubt})")
    if advice:
        print(f"  {advice}")
