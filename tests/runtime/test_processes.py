"""What the process lives through: signals at any moment, streams that are closed, folders that are gone, locales."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from edge_fer.core import Frame

EDGE_FER = [sys.executable, "-m", "edge_fer"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    command = [*EDGE_FER, "run", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **options)  # type: ignore[call-overload,no-any-return]


def ended(child: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit code, and what stands on stderr."""
    _, err = child.communicate(timeout=60)
    return child.returncode, err.decode()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_signal_is_heard_while_a_camera_does_not_answer(
    scheme: str, number: int, server: socket.socket, tmp_path: Path
) -> None:
    address = f"{scheme}://user:secret@127.0.0.1:{server.getsockname()[1]}/stream"
    child = start("--camera", address, "--output", f"video:{tmp_path}/v.mp4")
    connection, _ = server.accept()
    child.send_signal(number)
    assert ended(child) == (0, "")  # 69 is what it ends with when the camera's time is up
    assert list(tmp_path.iterdir()) == []
    connection.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_when_a_camera_has_fallen_silent(
    number: int, server: socket.socket, tmp_path: Path, demo_frames: list[Frame]
) -> None:
    child = start(
        *("--camera", f"http://127.0.0.1:{server.getsockname()[1]}/stream.mjpg"),
        *("--output", f"video:{tmp_path}/v.mp4", "--output", "jsonl:-"),
    )
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n\r\n")
    for frame in demo_frames[:30]:
        data = cv2.imencode(".jpg", frame.gray)[1].tobytes()
        connection.sendall(b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(data), data))
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(number)
    assert ended(child) == (0, "")
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).read()[0]
    connection.close()


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_heard_while_nobody_opens_the_pipe(kind: str, number: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    other = tmp_path / "other.csv"
    child = start("--camera", "demo", "--output", f"csv:{other}", "--output", f"{kind}:{tmp_path}/pipe")
    while not other.exists() and child.poll() is None:  # the outputs are opened in turn
        os.sched_yield()
    child.send_signal(number)
    assert ended(child) == (0, "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_heard_while_nobody_reads_the_pipe(number: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    outputs = [f"video:{tmp_path}/v.mp4", f"jsonl:{tmp_path}/pipe", f"csv:{tmp_path}/x.csv"]
    child = start("--camera", "demo", *(word for output in outputs for word in ("--output", output)))
    while not stands_still(child.pid):
        pass
    child.send_signal(number)
    assert ended(child) == (0, "")
    frames = cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)
    rows = (tmp_path / "x.csv").read_text().splitlines()
    assert frames > 10
    assert rows[-1].count(",") == rows[0].count(",")
    os.close(reader)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_heard_while_no_event_of_a_recording_comes(number: int, tmp_path: Path) -> None:
    silent, into = os.pipe()
    os.write(into, b"{")  # half an event
    command = [*EDGE_FER, "replay", "-", "--output", f"jsonl:{tmp_path}/x"]
    child = subprocess.Popen(command, stdin=silent, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while child.poll() is None and fcntl.ioctl(silent, termios.FIONREAD, bytes(4)) != bytes(4):
        os.sched_yield()
    child.send_signal(number)
    assert ended(child) == (0, "")
    assert list(tmp_path.iterdir()) == []
    os.close(silent)
    os.close(into)


def stands_still(process: int) -> bool:
    """Whether a process slept whenever it was looked at, as it does within a write to a pipe that is full."""
    states = [Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] for _ in range(10_000)]
    return set(states) == {b"S"}


def test_a_service_does_not_die_of_sighup(tmp_path: Path) -> None:
    child = start("--camera", "demo", "--output", "jsonl:-", env={**os.environ, "NOTIFY_SOCKET": "/run/none"})
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGHUP)
    # It goes on: more than what was on its way into the pipe.
    assert all(b'"expression"' in child.stdout.readline() for _ in range(5))
    child.send_signal(signal.SIGTERM)
    assert ended(child) == (0, "edge-fer: The configuration is read again: nothing has changed.\n")


def test_nohup_is_kept(tmp_path: Path) -> None:
    child = start(
        *("--camera", "demo", "--output", "jsonl:-"), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGHUP)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert b'"seq":244' in out  # the demo's last frame


@pytest.mark.parametrize("closed", ["0", "1", "2", "01", "02", "12", "012"])
def test_closed_streams(closed: str, photo: Path, tmp_path: Path) -> None:
    redirections = " ".join(f"{number}>&-" for number in closed)
    arguments = ["run", "--camera", str(photo), "--output", f"csv:{tmp_path}/x.csv"]
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *EDGE_FER, *arguments]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 3
    command[-3] = str(tmp_path / "none.png")
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 66


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--camera", "{photo}"], 0),
        (["--camera", "{photo}", "--output", "video:{folder}/v.mp4", "--output", "pictures:{folder}/p"], 0),
        (["--camera", "photo.png"], 66),
        (["--camera", "{photo}", "--config", "x.toml"], 78),
        (["--camera", "{photo}", "--output", "csv:x.csv"], 73),
        (["--camera", "{photo}", "--output", "video:x.mp4"], 73),
        (["--camera", "{photo}", "--output", "video:x.avi"], 73),
        (["--camera", "{photo}", "--output", "pictures:x"], 73),
        (["--camera", "{photo}", "--model", "x.tflite"], 66),
    ],
)
def test_a_working_directory_that_is_gone(arguments: list[str], code: int, photo: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [word.format(photo=photo, folder=tmp_path) for word in arguments]
    script = 'rmdir "$PWD" && exec "$@"'
    command = ["sh", "-c", script, "sh", *EDGE_FER, "run", *words]
    child = subprocess.run(command, cwd=gone, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == code, child.stderr
    assert len(child.stderr.splitlines()) == (code != 0)


LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "posix": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "utf-8": {"PYTHONUTF8": "1"},
}


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", [b"caf\xe9", "Küche 表情".encode(), b"a\xff\xfe:b%d", b"plain"])
def test_outputs_in_any_bytes_under_any_locale(name: bytes, locale: str, photo: Path, tmp_path: Path) -> None:
    kinds = {b"jsonl": b".jsonl", b"csv": b".csv", b"video": b".mp4", b"pictures": b""}
    outputs = [b"%b:%b/%b/%b%b" % (kind, os.fsencode(tmp_path), name, name, end) for kind, end in kinds.items()]
    outputs.append(b"video:%b/%b.avi" % (os.fsencode(tmp_path), name))
    command = [*EDGE_FER, "run", "--camera", "demo", "--output", "terminal"]
    words = [word for output in outputs for word in (b"--output", output)]
    environ = {**os.environ, **LOCALES[locale]}
    with subprocess.Popen([*command, *words], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        assert (child.communicate(timeout=60)[1], child.returncode) == (b"", 0)
    folder = tmp_path / os.fsdecode(name)
    assert sorted(os.fsencode(path.name) for path in folder.iterdir()) == sorted(name + end for end in kinds.values())
    folder.rename(tmp_path / "moved")
    (tmp_path / "moved" / os.fsdecode(name + b".mp4")).rename(tmp_path / "v.mp4")
    (tmp_path / os.fsdecode(name + b".avi")).rename(tmp_path / "v.avi")
    for video in ("v.mp4", "v.avi"):
        assert cv2.VideoCapture(str(tmp_path / video)).read()[0]


@pytest.mark.parametrize("locale", LOCALES)
def test_a_configuration_names_paths_in_utf8_under_any_locale(locale: str, tmp_path: Path, photo: Path) -> None:
    folder = tmp_path / "Küche"
    folder.mkdir()
    config = folder / "é.toml"
    outputs = [f"csv:{folder}/表情.csv", "terminal"]
    config.write_text(f'name = "Küche"\noutputs = {outputs}\n[camera]\nsource = "{photo}"\n'.replace("'", '"'), "utf-8")
    child = start("--config", config, env={**os.environ, **LOCALES[locale]})
    assert ended(child) == (0, "")
    assert len((folder / "表情.csv").read_text().splitlines()) == 3
