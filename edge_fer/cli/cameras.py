"""``edge-fer cameras``: what is there."""

from __future__ import annotations

import argparse
import json

from edge_fer.cli.verbs import Verbs, add_verb


def add_cameras(verbs: Verbs) -> None:
    """Add the verb."""
    cameras = add_verb(verbs, "cameras", "list the cameras of this machine", "example:\n  edge-fer cameras --json\n")
    cameras.add_argument("--json", action="store_true", help="print JSON")
    cameras.set_defaults(act=_cameras)


def _cameras(args: argparse.Namespace) -> None:
    from edge_fer.sources.v4l2 import list_cameras

    cameras = list_cameras()
    if args.json:
        print(json.dumps([{"device": device, "name": name} for device, name in cameras]))
    elif cameras:
        for device, name in cameras:
            print(f"{device}  {name}")
    else:
        print("No USB or V4L2 camera found. A Raspberry Pi camera module is --camera picamera:0.")
