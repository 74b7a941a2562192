"""The release on the board's processor and system, emulated: installed by its own script, compared with this machine.

``make test-emulated`` runs this: Debian trixie for arm64, unpacked, under qemu-user. Nothing of systemd runs there; the
whole of a board is emulated by ``make image-test``.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from test_install import make_key, release

from edge_fer.sources.demo import DemoSource

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "firmware_configs" / "image" / "build"
PROCESSORS = ("cortex-a53", "cortex-a76")
"""Of a Zero 2 W and a Pi 3, and of a Pi 5: the same program runs other instructions on each."""
OWN_TESTS = ("golden", "preprocess", "classifier", "decision", "template", "smoothing", "tracking", "alignment")
"""Tests of the runtime whose verdict might hang on the processor, as many as a few minutes allow."""
TOOLS = ("pytest", "hypothesis", "iniconfig", "pluggy", "packaging", "sortedcontainers", "pygments")
"""What they are run with."""

pytestmark = pytest.mark.emulated


class Board:
    """A root folder whose programs are run by the emulator."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([BUILD, "in", self.root, *command], capture_output=True, text=True, check=False)


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board with the release on its boot partition, and the two commands of systemd that install.sh calls."""
    folder = tmp_path_factory.mktemp("emulated")
    root = folder / "root"
    subprocess.run([BUILD, "emulator"], check=True)
    subprocess.run([BUILD, "extract", root], check=True)
    card = root / "boot" / "firmware" / "edge-fer"
    (card / "wheels").mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", card / "wheels", ROOT], check=True
    )
    release.fetch_wheels(release.SYSTEMS[0], card / "wheels")
    (wheel,) = (card / "wheels").glob("edge_fer-*.whl")
    release.fill(card, release.SYSTEMS[0], wheel.name.split("-")[1])
    release.sign(card, make_key(folder))
    (root / "run" / "systemd" / "system").mkdir(parents=True)
    for name in ("systemctl", "udevadm"):
        program = root / "usr" / "sbin" / name
        program.write_text('#!/bin/sh\necho "${0##*/} $*" >>/tmp/calls\n')
        program.chmod(0o755)
    yield Board(root)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def installed(board: Board) -> Board:
    done = board.run("sh", "/boot/firmware/edge-fer/install.sh")
    assert done.returncode == 0, done.stderr
    # The model computes what it did where it was made, else install.sh would not go on.
    assert "accurate.tflite is good" in done.stdout
    assert (board.root / "tmp" / "calls").read_text().splitlines()[-1] == "systemctl restart edge-fer.service"
    return board


def test_the_board_is_another_processor(board: Board) -> None:
    assert board.run("uname", "-m").stdout.strip() == "aarch64"
    assert board.run("python3", "-c", "import platform; print(platform.machine())").stdout.strip() == "aarch64"


def test_a_release_is_installed_and_computes(installed: Board) -> None:
    verified = installed.run("/opt/edge-fer/bin/edge-fer", "models", "verify", "nano")
    assert (verified.returncode, "nano.tflite is good" in verified.stdout) == (0, True), verified.stderr


def test_the_second_time_nothing_is_installed(installed: Board) -> None:
    assert "is installed already" in installed.run("sh", "/boot/firmware/edge-fer/install.sh").stdout


def test_xnnpack_runs_there(installed: Board) -> None:
    """Without the processor's caches in /sys it silently does not, and what is compared below would prove little."""
    script = (
        "from ai_edge_litert.interpreter import Interpreter; import sys; Interpreter(sys.argv[1]).allocate_tensors()"
    )
    (bundle,) = (installed.root / "opt").glob("edge-fer-*/lib/python3*/site-packages/edge_fer/bundles/nano.tflite")
    inside = f"/{bundle.relative_to(installed.root)}"
    said = installed.run("/opt/edge-fer/bin/python", "-c", script, inside)
    assert said.returncode == 0
    assert "Created TensorFlow Lite XNNPACK delegate for CPU" in said.stderr


@pytest.fixture(scope="module")
def clip(installed: Board) -> Path:
    """The same frames for all, not the demo's own: what draws these has other last digits on each processor."""
    clip = installed.root / "tmp" / "clip"
    with clip.open("wb") as file:
        for frame in itertools.islice(DemoSource(), 0, None, 4):
            file.write(cv2.cvtColor(frame.picture(), cv2.COLOR_BGR2YUV_I420).tobytes())
    return clip


@pytest.mark.parametrize("processor", PROCESSORS)
def test_its_events_are_those_of_this_machine(installed: Board, clip: Path, processor: str) -> None:
    script = "cd /tmp && /opt/edge-fer/bin/edge-fer run --overwrite --camera pipe:640x480@4:clip --output jsonl:there"
    done = installed.run("env", f"QEMU_CPU={processor}", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    here = clip.with_name("here")
    arguments = ["run", "--overwrite", "--camera", f"pipe:640x480@4:{clip}", "--output", f"jsonl:{here}"]
    subprocess.run([sys.executable, "-m", "edge_fer", *arguments], check=True, cwd=ROOT)
    ours, theirs = events(here), events(clip.with_name("there"))
    assert len(ours) > 100
    for one, other in zip(ours, theirs, strict=True):
        for key in ("phase", "seq", "time_s", "track", "box", "expression", "uncertain", "stable_ms", "probabilities"):
            assert one[key] == other[key], (key, one, other)


def test_the_runtimes_own_tests_pass_there(installed: Board) -> None:
    checkout, site = installed.root / "tmp" / "checkout", installed.root / "tmp" / "site"
    shutil.copytree(ROOT / "tests", checkout / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    locked = re.split(r"(?m)^(?=\w)", (ROOT / "requirements-dev.lock").read_text())
    wanted = site.with_name("requirements.txt")
    wanted.write_text("".join(entry for entry in locked if entry.partition("==")[0] in TOOLS))
    system = release.SYSTEMS[0]
    for_it = ["--python-version", system.python, *(f"--platform={tag}" for tag in system.platforms())]
    fetch = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    subprocess.run([*fetch, *for_it, "--target", site, "-r", wanted], check=True)
    files = " ".join(f"tests/runtime/test_{name}.py" for name in OWN_TESTS)
    tests = f"cd /tmp/checkout && PYTHONPATH=/tmp/site /opt/edge-fer/bin/python -m pytest -p no:cacheprovider {files}"
    done = installed.run("sh", "-c", tests)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
