"""What systemd hears of a service: its words on a real socket, and what a process says."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_fer.errors import UnavailableError
from edge_fer.systemd import PAUSES_S, Service


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
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def read(self) -> float:
        return self.now_s

    def sleep(self, s: float) -> None:
        self.slept.append(s)
        self.now_s += s


def test_no_service_without_a_socket() -> None:
    assert Service.from_environ({}) is None
    assert Service.from_environ({"NOTIFY_SOCKET": ""}) is None
    assert Service.from_environ({"NOTIFY_SOCKET": "vsock:2:1"}) is None


def test_an_abstract_socket_is_heard() -> None:
    name = f"edge-fer-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind("\0" + name)
        there.settimeout(60)
        Service("@" + name).ready("here")
        assert there.recv(100) == b"READY=1\nSTATUS=here"


def test_nobody_who_listens_is_no_error(tmp_path: Path) -> None:
    service = Service(str(tmp_path / "gone"), watchdog_s=1)
    service.ready("here")
    service.alive()
    service.stopping()


def test_watchdog_is_fed_four_times_in_its_time(systemd: Systemd) -> None:
    clock = Clock()
    service = Service(str(systemd.path), 30, clock.read, clock.sleep)
    for _ in range(30 * 10):
        service.alive()
        clock.now_s += 0.1
    assert systemd.heard() == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize(
    ("pid", "usec", "fed"), [("", "30000000", 1), ("1", "30000000", 0), (None, "soon", 0), (None, "0", 0)]
)
def test_only_the_watchdog_of_this_process_is_fed(systemd: Systemd, pid: str | None, usec: str, fed: int) -> None:
    environ = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": usec}
    if pid is not None:
        environ["WATCHDOG_PID"] = pid or str(os.getpid())
    service = Service.from_environ(environ)
    assert service
    service.alive()
    assert len(systemd.heard()) == fed


def test_a_wait_says_so_once_and_grows_and_is_alive(systemd: Systemd, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    service = Service(str(systemd.path), 8, clock.read, clock.sleep)
    error = UnavailableError("No camera rtsp://me:secret@there/x is there. Plug one in.")
    heard = []
    with caplog.at_level(logging.WARNING, "edge_fer"):
        for pause_s in (*PAUSES_S, PAUSES_S[-1]):
            before_s = clock.now_s
            service.wait(error)
            assert clock.now_s - before_s == pytest.approx(pause_s)
            heard += systemd.heard()
        service.opened("0")
    heard += systemd.heard()
    said = [words for words in heard if words != "WATCHDOG=1"]
    assert said == [
        "READY=1\nSTATUS=no camera: No camera rtsp://there/... is there. Plug one in.",
        "READY=1\nSTATUS=recognizing expressions from 0",
    ]
    # Never longer without a sign of life than a part of what is allowed.
    assert max(clock.slept) <= 2
    assert len(heard) - len(said) >= sum(PAUSES_S) // 2
    assert [record.getMessage() for record in caplog.records] == [
        "No camera rtsp://there/... is there. Plug one in. Waiting for it.",
        "0 is there.",
    ]


def test_a_camera_that_is_there_is_no_news(systemd: Systemd, caplog: pytest.LogCaptureFixture) -> None:
    Service(str(systemd.path)).opened("0")
    assert systemd.heard() == ["READY=1\nSTATUS=recognizing expressions from 0"]
    assert not caplog.records


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
