"""What systemd hears of a service: its words on a real socket, and what a process says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_fer.control import Control, State
from edge_fer.systemd import Service


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(60)

    def hear(self) -> str:
        """The next words, which are waited for."""
        return self._socket.recv(4096).decode()

    def heard(self) -> list[str]:
        """All words that have come."""
        words = []
        self._socket.setblocking(False)
        try:
            while True:
                words.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return words
        finally:
            self._socket.settimeout(60)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    there = Systemd(tmp_path / "notify")
    yield there
    there.close()


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def read(self) -> float:
        return self.now_s


def test_no_service_without_a_socket() -> None:
    assert Service.from_environ({}) is None
    assert Service.from_environ({"NOTIFY_SOCKET": ""}) is None
    assert Service.from_environ({"NOTIFY_SOCKET": "vsock:2:1"}) is None


def test_an_abstract_socket_is_heard() -> None:
    name = f"edge-fer-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind("\0" + name)
        there.settimeout(60)
        Service("@" + name).tell(in_state(State.PAUSED), "0")
        assert there.recv(100) == b"READY=1\nSTATUS=paused: all cameras are closed"


def test_nobody_who_listens_is_no_error(tmp_path: Path) -> None:
    service = Service(str(tmp_path / "gone"), watchdog_s=1)
    service.tell(in_state(State.RECOGNIZING), "0")
    service.stopping()


def in_state(state: State, reason: str = "") -> Control:
    control = Control()
    control.state, control.reason = state, reason
    return control


@pytest.mark.parametrize(
    ("state", "frames", "fed"),
    [
        (State.RECOGNIZING, 1, 4),
        (State.RECOGNIZING, 0, 0),  # the loop turns, and says that it recognizes, but does not
        (State.WAITING, 0, 4),
        (State.PAUSED, 0, 4),
        (State.PAUSING, 0, 0),  # a camera does not close: the end of the process will
        (State.STARTING, 0, 0),
    ],
)
def test_watchdog_is_fed_four_times_in_its_time(systemd: Systemd, state: State, frames: int, fed: int) -> None:
    clock = Clock()
    service, control = Service(str(systemd.path), 30, clock.read), in_state(state)
    for _ in range(30 * 10):
        control.frames += frames
        service.tell(control, "0")
        clock.now_s += 0.1
    assert systemd.heard().count("WATCHDOG=1") == fed


def test_what_it_does_is_told_once(systemd: Systemd) -> None:
    service = Service(str(systemd.path))
    control = in_state(State.STARTING)
    camera = "rtsp://me:secret@there/x"
    for state, reason in (
        (State.STARTING, ""),
        (State.WAITING, "No camera rtsp://there/... is there. Plug one in."),
        (State.RECOGNIZING, ""),
        (State.PAUSING, ""),
        (State.PAUSED, ""),
        (State.WAITING, ""),
    ):
        control.state, control.reason = state, reason
        service.tell(control, camera)
        service.tell(control, camera)
    assert [words.removeprefix("READY=1\nSTATUS=") for words in systemd.heard()] == [
        "no camera: No camera rtsp://there/... is there. Plug one in.",
        "recognizing expressions from rtsp://there/...",
        "pausing: a camera is not closed yet",
        "paused: all cameras are closed",
        "waiting for a camera",
    ]


@pytest.mark.parametrize(
    ("pid", "usec", "fed"), [("", "30000000", 1), ("1", "30000000", 0), (None, "soon", 0), (None, "0", 0)]
)
def test_only_the_watchdog_of_this_process_is_fed(systemd: Systemd, pid: str | None, usec: str, fed: int) -> None:
    environ = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": usec}
    if pid is not None:
        environ["WATCHDOG_PID"] = pid or str(os.getpid())
    service = Service.from_environ(environ)
    assert service
    service.tell(in_state(State.PAUSED), "0")
    assert systemd.heard().count("WATCHDOG=1") == fed


def run_as_service(systemd: Systemd, *arguments: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "4000000"}
    command = [sys.executable, "-m", "edge_fer", "run", *arguments]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_service_waits_for_its_camera_and_goes_when_asked(systemd: Systemd) -> None:
    child = run_as_service(systemd, "--camera", "/dev/video77")
    assert systemd.hear().startswith("READY=1\nSTATUS=no camera: No camera /dev/video77.")
    assert systemd.hear() == "WATCHDOG=1"
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 0
    assert said.startswith("edge-fer: No camera /dev/video77.")
    assert len(said.splitlines()) == 1
    assert systemd.heard()[-1] == "STOPPING=1"


def test_a_service_shows_the_demo_without_end(systemd: Systemd, tmp_path: Path) -> None:
    child = run_as_service(systemd, "--camera", "demo", "--output", "jsonl:-")
    assert systemd.hear() == "READY=1\nSTATUS=recognizing expressions from demo:loop"
    assert systemd.hear() == "WATCHDOG=1"
    assert child.stdout
    assert '"expression"' in child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=60)[1] == ""
    assert child.returncode == 0


def test_a_wrong_configuration_is_not_waited_for(systemd: Systemd) -> None:
    child = run_as_service(systemd, "--camera", "nowhere.mp4")
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (66, "edge-fer: There is no file or folder nowhere.mp4.\n")
    assert systemd.heard() == ["STOPPING=1"]
