"""A Raspberry Pi made of files and of answers, with nothing wrong in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from v4l2_fake import FakeCamera, FakeMachine

from edge_fer import cameras
from edge_fer.config import CameraSettings, Settings
from edge_fer.doctor import devices, examine, packages
from edge_fer.doctor.machine import Finding, Machine
from edge_fer.libraries import Child

ANSWERS: dict[str, Any] = {
    packages.NUMPY_SCRIPT: {"version": "2.2.4"},
    packages.OPENCV_SCRIPT: {
        "version": "4.14.0",
        "cascade": True,
        "numpy": "2.2.4",
        "packages": ["opencv-python-headless"],
    },
    packages.RUNTIME_SCRIPT: {"name": "ai-edge-litert", "version": "2.3.0", "numpy": "2.2.4"},
    packages.MODEL_SCRIPT: {"name": "accurate", "vectors": 4, "lsb": 0},
    packages.DETECTOR_SCRIPT: {},
    cameras._PI_SCRIPT: [{"number": 0, "model": "imx708", "id": "/base/soc/i2c0mux/i2c@1/imx708@1a"}],
    devices.CORAL_SCRIPT: "",
}
FILES = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/meminfo": "MemTotal: 3884316 kB\nMemAvailable: 3000000 kB\nSwapFree: 0 kB\n"
    "CmaTotal: 524288 kB\nCmaFree: 400000 kB\n",
    "proc/self/cgroup": "0::/system.slice/edge-fer.service\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids\n",
    "sys/fs/cgroup/system.slice/edge-fer.service/memory.max": "268435456\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
    "etc/group": "root:x:0:\nvideo:x:44:pi,ann\n",
    "boot/firmware/config.txt": "camera_auto_detect=1\n",
}


class Board:
    """A Raspberry Pi that has nothing wrong, with a webcam; a test spoils one thing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers = dict(ANSWERS)
        self.video = FakeMachine(root, {0: FakeCamera()})
        for name, text in FILES.items():
            self.write(name, text)
        self.fields: dict[str, Any] = {
            "now_s": 2e9,
            "is_synchronized": lambda: True,
            "free_bytes": lambda folder: 9 << 30,
        }

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def source(self, source: str) -> None:
        self.fields["config"] = Path("/etc/edge-fer/config.toml")
        self.fields["settings"] = Settings(camera=CameraSettings(source=source))

    def run_python(self, script: str, *arguments: str) -> Child:
        answer = self.answers.get(script, Child(1, "", "ModuleNotFoundError: No module named 'tflite_runtime'"))
        if isinstance(answer, Child):
            return answer
        return Child(0, "loaded\n" + json.dumps(answer) if answer != "" else "", "")

    def machine(self) -> Machine:
        given = {
            "bits": 64,
            "arch": "aarch64",
            "python": (3, 13),
            "libc": ("glibc", "2.41"),
            "executable": "/opt/x/bin/python",
            "in_venv": True,
            "prefix": Path("/opt/x"),
            "user": "pi",
            "groups": (1000, 44),
            "may_write": lambda path: True,
            "why_unreachable": lambda host, port: "",
            "why_taken": lambda host, port: "",
            "settings": Settings(),
            **self.fields,
        }
        return Machine(root=self.root, ioctl=self.video.ioctl, run_python=self.run_python, **given)

    def findings(self) -> dict[str, Finding]:
        return dict(examine(self.machine()))
