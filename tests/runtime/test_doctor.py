"""``edge-fer doctor`` on a board that is good, on odd ones, as a page, and with real child processes."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_fake import FILES, Board
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from v4l2_fake import FakeCamera, FakeMachine

from edge_fer.cli import main
from edge_fer.config import CameraSettings, DetectorSettings, Settings
from edge_fer.doctor import CHECKS, examine, packages
from edge_fer.doctor.machine import Machine

ROOT = Path(__file__).parents[2]
Call = Callable[..., Any]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_a_good_board_is_green(board: Board) -> None:
    found = board.findings()
    assert {name: one for name, one in found.items() if one.level != "green"} == {}
    assert found.keys() == CHECKS.keys() - {"Pi camera", "Coral", "outputs"}
    assert found["64-bit"].text == "aarch64, Raspberry Pi 4 Model B Rev 1.4"
    assert found["camera"].text == "/dev/video0 (HD Webcam)"
    assert found["model"].text == "accurate: self-test good, 4 golden vectors to the bit"
    assert found["power"].text == "48.3 °C, never slowed down"


def test_permission_denied(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, *arguments: Any) -> int:
        if str(path).startswith(str(board.root)):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments)

    monkeypatch.setattr("edge_fer.cameras.os.open", refuse)
    board.fields["groups"] = (1000,)
    found = board.findings()["camera"]
    assert (found.level, found.cure) == ("red", "newgrp video")
    board.write("etc/group", "video:x:44:\n")
    found = board.findings()["camera"]
    assert (found.level, found.cure) == ("red", "sudo usermod -aG video pi")
    board.write("etc/group", "video\n")
    assert board.findings()["camera"].cure == "sudo usermod -aG video pi"


def test_a_camera_by_its_stable_name(board: Board) -> None:
    board.video.link(0, "usb-HD-video-index0")
    board.source("/dev/v4l/by-id/usb-HD-video-index0")
    assert board.findings()["camera"].text == "/dev/video0 (HD Webcam)"


def test_two_cameras_want_their_own_names(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    board.video = FakeMachine(tmp_path / "two", {0: FakeCamera("A"), 2: FakeCamera("B")})
    board.video.link(0, "usb-A-video-index0")
    board.root = tmp_path / "two"
    found = board.findings()["camera"]
    assert (found.level, found.cure) == (
        "yellow",
        "edge-fer config edit camera.source /dev/v4l/by-id/usb-A-video-index0",
    )


def test_each_of_several_cameras_is_looked_for(board: Board) -> None:
    two = [CameraSettings("0"), CameraSettings("/srv/none.mp4")]
    board.fields["settings"] = Settings(cameras=two)
    found = [finding for name, finding in examine(board.machine()) if name == "camera"]
    assert [one.level for one in found] == ["green", "red"]
    board.fields["settings"] = Settings(cameras=[CameraSettings("0"), CameraSettings("picamera:0")])
    assert board.findings()["Pi camera"].level == "green"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted([*FILES, "proc/812/cgroup"])), content=st.binary(max_size=60))
def test_files_that_hold_nonsense(name: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    board = Board(tmp_path_factory.mktemp("board"))
    board.video.hold(0, 812, "x")
    (board.root / name).write_bytes(content)
    for check, finding in examine(board.machine()):
        assert check in CHECKS
        assert finding.text
        assert finding.level != "red" or finding.cure


def test_a_check_that_fails_is_a_line(board: Board) -> None:
    def fails(folder: Path) -> int:
        raise ZeroDivisionError("\x1b[31m")

    board.fields["free_bytes"] = fails
    found = board.findings()
    assert (found["disk"].level, found["disk"].text.isprintable()) == ("yellow", True)
    assert found["clock"].level == "green"


@pytest.mark.parametrize(
    "source",
    ["", "\0", "~nobody-here/x", "\udcff", "a" * 5000, "\x1b[31m", "rtsp://", "rtsp://:/", "http://[", "rtsp://h:99999/",
     "/dev/", "/dev/video", "/dev/../etc", "rtsp://" + "a" * 300 + "/", "picamera:x"],
)  # fmt: skip
def test_hostile_names_of_cameras(source: str, board: Board, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    board.source(source)
    board.fields["why_unreachable"] = Machine().why_unreachable if "99999" in source or "aaa" in source else str
    monkeypatch.setattr("edge_fer.doctor.machine.Machine", lambda *given: board.machine())
    monkeypatch.setattr("edge_fer.config.default_files", list)
    done = call(main, "doctor")
    assert "could not be checked" not in done.out
    assert all(line.isprintable() for line in done.out.splitlines())


# The verb


@pytest.fixture
def seeded(board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    def machine(given: Settings, config: Path | None, mistakes: tuple[str, ...]) -> Machine:
        return dataclasses.replace(board.machine(), config=config, mistakes=mistakes)

    monkeypatch.setattr("edge_fer.doctor.machine.Machine", machine)
    monkeypatch.setattr("edge_fer.config.default_files", list)
    for name in [name for name in os.environ if name.startswith("EDGE_FER_")]:
        monkeypatch.delenv(name)
    return board


def test_the_page(seeded: Board, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = call(main, "doctor")
    assert (done.code, done.err) == (0, "")
    assert "Nothing is red." in done.out
    assert "\x1b" not in done.out
    seeded.fields["free_bytes"] = lambda folder: 20 << 20
    seeded.fields["is_synchronized"] = lambda: False
    done = call(main, "doctor")
    assert done.code == 1
    assert done.err == "edge-fer: Red: disk. The command below each mends it.\n"
    lines = done.out.splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.startswith("red"))
    assert lines[place].startswith("red     disk          The disk has 20 MB left.")
    assert any(line.strip() == "$ sudo apt-get clean" for line in lines)
    assert max(map(len, lines)) <= 80


def test_json(seeded: Board, call: Call) -> None:
    seeded.fields["is_synchronized"] = lambda: False
    done = call(main, "doctor", "--json")
    page = json.loads(done.out)
    assert (done.code, page["level"]) == (0, "yellow")
    assert {"check": "NumPy", "level": "green", "text": "2.2.4", "cure": ""} in page["checks"]
    seeded.fields["bits"] = 32
    done = call(main, "doctor", "--json")
    assert (done.code, json.loads(done.out)["level"]) == (1, "red")


def test_a_wrong_configuration_is_a_line(seeded: Board, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[camera]\nwidht = 3\nsource = 3\n")
    done = call(main, "doctor", "--config", path)
    assert done.code == 1
    assert "Did you mean 'camera.width'?" in " ".join(done.out.split())
    assert f"$ nano {path}" in done.out
    assert call(main, "doctor", "--config", tmp_path / "none.toml").code == 1


# In real processes


FAKES = {
    "numpy": ("import os; os.kill(os.getpid(), 4)", "NumPy", "SIGILL"),
    "cv2": ("__version__ = '5.0.0'", "OpenCV", "5.0.0 has no Haar cascade"),
    "ai_edge_litert": ("import os; os.abort()", "runtime", "SIGABRT"),
    "picamera2": ("raise ImportError('numpy.core.multiarray failed')", "Pi camera", "built for another NumPy"),
}


@pytest.mark.parametrize("module", FAKES)
def test_real_children(module: str, tmp_path: Path) -> None:
    code, check, words = FAKES[module]
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text(code)
    (tmp_path / "c.toml").write_text('[camera]\nsource = "picamera:0"\n')
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "XDG_CACHE_HOME": "/", "COLUMNS": "200"}
    command = [sys.executable, "-P", "-m", "edge_fer", "doctor", "--json", "--config", str(tmp_path / "c.toml")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("edge-fer: Red: ")
    (found,) = (one for one in json.loads(done.stdout)["checks"] if one["check"] == check)
    assert found["level"] == "red"
    assert words in found["text"]


def test_this_machine_is_examined(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands here: a page, an exit code, no traceback, and the packages of the tests are good."""
    monkeypatch.setattr("edge_fer.config.default_files", list)
    done = call(main, "doctor", "--json")
    levels = {one["check"]: one["level"] for one in json.loads(done.out)["checks"]}
    assert done.code == (1 if "red" in levels.values() else 0)
    assert levels["model"] == levels["OpenCV"] == "green"


def test_a_port_that_is_taken_and_one_that_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "in use" in Machine().why_taken("127.0.0.1", port)
    assert Machine().why_taken("127.0.0.1", port) == ""


def test_the_detector_that_is_configured_is_tried(board: Board) -> None:
    board.fields["settings"] = Settings(detector=DetectorSettings(kind="ssd"))
    board.answers[packages.DETECTOR_SCRIPT] = {}
    assert board.findings()["detector"].text == "ssd: it opens, self-test good"
    board.answers[packages.DETECTOR_SCRIPT] = ""
    assert board.findings()["detector"].level == "yellow"
