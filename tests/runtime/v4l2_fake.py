"""A machine with cameras: /sys, /dev and /proc in a folder, and a driver that answers as linux/videodev2.h says."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Sizes = Sequence[tuple[int, int, Sequence[int]]]
"""Width, height, frames per second."""

CAPTURE, CAPTURE_MPLANE, META = 0x04200001, 0x04201000, 0x04A00000


@dataclass
class FakeCamera:
    """What a driver knows of one node."""

    name: str = "HD Webcam"
    capabilities: int = CAPTURE
    formats: Mapping[bytes, Sizes] = field(default_factory=lambda: {b"YUYV": [(640, 480, [30, 15])]})
    stepwise: bool = False
    fails: int = 0


class FakeMachine:
    """Cameras by number of their node, below a root of their own.

    Args:
        root: an empty folder.
        cameras: by N of /dev/videoN.
    """

    def __init__(self, root: Path, cameras: Mapping[int, FakeCamera]) -> None:
        self.root = root
        self.cameras = dict(cameras)
        for folder in ("sys/class/video4linux", "dev/v4l/by-id", "dev/v4l/by-path", "proc"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for number, camera in self.cameras.items():
            node = root / f"sys/class/video4linux/video{number}"
            node.mkdir()
            (node / "name").write_text(camera.name + "\n")
            (root / f"dev/video{number}").touch()

    def link(self, number: int, name: str, folder: str = "by-id") -> None:
        (self.root / "dev/v4l" / folder / name).symlink_to(f"../../video{number}")

    def hold(self, number: int, pid: int, program: str, cgroup: str = "0::/\n") -> None:
        process = self.root / f"proc/{pid}"
        (process / "fd").mkdir(parents=True)
        (process / "fd/7").symlink_to(f"/dev/video{number}")
        (process / "fd/8").symlink_to("socket:[1]")
        (process / "comm").write_text(program + "\n")
        (process / "cgroup").write_text(cgroup)

    def ioctl(self, descriptor: int, request: int, answer: bytearray) -> int:
        camera = self.cameras[int(Path(f"/proc/self/fd/{descriptor}").readlink().name.removeprefix("video"))]
        if camera.fails:
            raise OSError(camera.fails, os.strerror(camera.fails))
        try:
            match request:
                case 0x80685600:
                    struct.pack_into("<16s32s", answer, 0, b"uvcvideo", camera.name.encode()[:32])
                    struct.pack_into("<2I", answer, 84, 0x84A00001, camera.capabilities)
                case 0xC0405602:
                    index, kind = struct.unpack_from("<2I", answer, 0)
                    assert kind == (9 if camera.capabilities & 0x1000 else 1)
                    struct.pack_into("<4s", answer, 44, list(camera.formats)[index])
                case 0xC02C564A:
                    self._size(camera, answer)
                case 0xC034564B:
                    index, code, width, height = struct.unpack_from("<I4s2I", answer, 0)
                    rates = next((r for w, h, r in camera.formats[code] if (w, h) == (width, height)), [])
                    struct.pack_into("<3I", answer, 16, 1, 1, rates[index])
                case _:
                    raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        except IndexError:
            raise OSError(errno.EINVAL, "Invalid argument") from None
        return 0

    @staticmethod
    def _size(camera: FakeCamera, answer: bytearray) -> None:
        index, code = struct.unpack_from("<I4s", answer, 0)
        sizes = camera.formats[code]
        if not camera.stepwise:
            struct.pack_into("<3I", answer, 8, 1, *sizes[index][:2])
            return
        if index:
            raise IndexError
        (least_w, least_h, _), (most_w, most_h, _) = sizes[0], sizes[-1]
        struct.pack_into("<7I", answer, 8, 3, least_w, most_w, 2, least_h, most_h, 2)
