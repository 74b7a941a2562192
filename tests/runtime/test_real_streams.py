"""Servers on this machine that are killed and started again, a pipe that ffmpeg feeds, and servers that misbehave."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from source_parts import Mjpeg, scene

from edge_fer.config import CameraSettings
from edge_fer.core import FrameSource
from edge_fer.errors import UnavailableError
from edge_fer.sources import network
from edge_fer.sources.network import network_source

DEBIAN_PYTHON = "/usr/bin/python3"
RTSP_SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
if sys.argv[1] == "probe":
    sys.exit(not all(Gst.ElementFactory.find(name) for name in ("jpegenc", "rtpjpegpay", "x264enc", "rtph264pay")))
server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
server.set_service(sys.argv[1])
pay = {
    "jpeg": "jpegenc ! rtpjpegpay name=pay0",
    "h264": "x264enc tune=zerolatency key-int-max=10 ! rtph264pay name=pay0",
}
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1,format=I420 ! "
    + pay[sys.argv[2]] + " )")
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def pause(seconds: float) -> None:
    """In place of the seconds that a lost camera is left alone: long enough for a server to start."""
    threading.Event().wait(0.02)


def opened(address: str, **settings: int) -> FrameSource:
    return network_source(CameraSettings(source=address, **settings), sleep=pause)


class Rtsp:
    """GStreamer's RTSP server in a process of its own."""

    def __init__(self, port: int, codec: str) -> None:
        self.process = subprocess.Popen(
            [DEBIAN_PYTHON, "-c", RTSP_SERVER, str(port), codec], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout and self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def _rtsp_server() -> None:
    with suppress(OSError):
        done = subprocess.run([DEBIAN_PYTHON, "-c", RTSP_SERVER, "probe"], capture_output=True, check=False)
        if not done.returncode:
            return
    pytest.skip(
        "no RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good "
        "gstreamer1.0-plugins-ugly"
    )


SERVERS: dict[str, tuple[str, Callable[[int], Mjpeg | Rtsp]]] = {
    "MJPEG by HTTP": ("http://127.0.0.1:{}/stream", Mjpeg),
    "JPEG by RTSP": ("rtsp://127.0.0.1:{}/live", lambda port: Rtsp(port, "jpeg")),
    "H.264 by RTSP": ("rtsp://127.0.0.1:{}/live", lambda port: Rtsp(port, "h264")),
}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> tuple[str, Callable[[int], Mjpeg | Rtsp]]:
    if "RTSP" in request.param:
        request.getfixturevalue("_rtsp_server")
    return SERVERS[request.param]


def test_a_server_is_killed_and_started_again(
    server: tuple[str, Callable[[int], Mjpeg | Rtsp]], caplog: pytest.LogCaptureFixture
) -> None:
    address, start = server
    port = free_port()
    running = start(port)
    try:
        with closing(opened(address.format(port))) as source:
            frames = iter(source)
            before = list(islice(frames, 10))
            running.kill()
            lost = threading.Event()
            watch = threading.Thread(target=lambda: lost.set() if wait_for(caplog, "is lost") else None, daemon=True)
            watch.start()
            # The last frames may still come; then the source waits, until this starts the server again.
            starter = threading.Thread(target=lambda: (lost.wait(60), again.append(start(port))), daemon=True)
            again: list[Mjpeg | Rtsp] = []
            starter.start()
            after = []
            for frame in frames:
                after.append(frame)
                if any("is back" in message for message in caplog.messages) and len(after) > 10:
                    break
            starter.join(60)
            running = again[0]
    finally:
        running.kill()
    frames_seen = [*before, *after]
    assert {frame.gray.shape for frame in frames_seen} == {(240, 320)}
    for earlier, later in pairwise(frames_seen):
        assert later.seq > earlier.seq and later.time_s >= earlier.time_s
    name = address.format(port).rpartition("/")[0] + "/..."
    told = [message for message in caplog.messages if "lost" in message or "back" in message]
    assert told == [f"{name} is lost. It is tried again until it is back.", f"{name} is back."]


def wait_for(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    """Whether the log has a text within a minute."""
    for _ in range(6000):
        if any(text in message for message in caplog.messages):
            return True
        threading.Event().wait(0.01)
    return False


def test_one_of_two_servers_is_killed_and_the_other_goes_on(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    servers = [Mjpeg(port) for port in ports]
    cameras = [argument for port in ports for argument in ("--camera", f"http://127.0.0.1:{port}/x")]
    clip = tmp_path / "e.csv"
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edge_fer",
            "run",
            *cameras,
            "--output",
            f"pictures:{tmp_path}/p",
            "--output",
            f"csv:{clip}",
        ],
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(tmp_path)},
    )
    folders = [tmp_path / "p" / f"http-127.0.0.1-{port}" for port in ports]

    def wait_until(true: Callable[[], bool]) -> None:
        for _ in range(6000):
            if true():
                return
            assert child.poll() is None, child.stderr and child.stderr.read()
            threading.Event().wait(0.01)
        raise AssertionError("a minute has passed")

    def count(folder: Path) -> int:
        return len(list(folder.glob("*.jpg")))

    try:
        wait_until(lambda: all(count(folder) > 5 for folder in folders))
        servers[0].kill()
        assert child.stderr
        assert b"is lost" in child.stderr.readline()
        seen = count(folders[1])
        wait_until(lambda: count(folders[1]) > seen + 10)
        stopped = count(folders[0])
        servers[0] = Mjpeg(ports[0])
        wait_until(lambda: count(folders[0]) > stopped + 5)
        assert b"is back" in child.stderr.readline()
    finally:
        child.terminate()
        _, rest = child.communicate(timeout=60)
        for server in servers:
            server.kill()
    assert child.returncode == 0
    assert rest == b""


@pytest.mark.parametrize(("asked", "seen"), [({}, (540, 960)), ({"full_size": True}, (1080, 1920))])
def test_a_large_stream_is_reduced_while_it_is_decoded(asked: dict[str, int], seen: tuple[int, int]) -> None:
    large = cv2.imencode(".jpg", cv2.resize(scene(3), (1920, 1080)))[1].tobytes()

    class One(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(large)))
            self.end_headers()
            self.wfile.write(large)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), One) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with closing(opened(f"http://127.0.0.1:{server.server_port}/shot.jpg", **asked)) as source:
            frame = next(iter(source))
        server.shutdown()
    assert frame.gray.shape == seen
    picture = frame.picture()
    assert picture.shape == (*seen, 3)
    assert np.abs(picture.astype(int) - cv2.resize(scene(3), seen[::-1])).mean() < 6


def test_a_pipe_that_ffmpeg_feeds(tmp_path: Path) -> None:
    if not (ffmpeg := shutil.which("ffmpeg")):
        pytest.skip("no ffmpeg: apt-get install ffmpeg")
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=30", "-frames:v", "20"]
    feed = subprocess.Popen([*command, "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"], stdout=subprocess.PIPE)
    run = [sys.executable, "-m", "edge_fer", "run", "--camera", "pipe:320x240@30", "--output", f"pictures:{tmp_path}/p"]
    done = subprocess.run(
        run,
        stdin=feed.stdout,
        capture_output=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(tmp_path)},
        check=False,
    )
    feed.communicate()
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list((tmp_path / "p").iterdir())) == 20


# --- servers that misbehave


@pytest.fixture
def answers() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Serves every connection with a function; gives the address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(act: Callable[[socket.socket], None]) -> str:
        def loop() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                act(connection)

        threading.Thread(target=loop, daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    listening.close()


def says_nothing(connection: socket.socket) -> None:
    connection.recv(1)
    threading.Event().wait(20)


def sends_garbage(connection: socket.socket) -> None:
    """Without end, in pieces that change."""
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/x-unknown\r\n\r\n")
    rng = np.random.default_rng(1)
    while True:
        connection.sendall(rng.bytes(1 << 16))


def sends_garbage_as_parts(connection: socket.socket) -> None:
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n")
    rng = np.random.default_rng(1)
    while True:
        connection.sendall(
            b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: 5000\r\n\r\n" + rng.bytes(5000) + b"\r\n"
        )


def leaves_at_once(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize("act", [says_nothing, sends_garbage, sends_garbage_as_parts, leaves_at_once])
def test_a_server_that_misbehaves_is_unavailable(
    answers: Callable[[Callable[[socket.socket], None]], str],
    act: Callable[[socket.socket], None],
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "NETWORK_TIMEOUT_MS", 500)
    with pytest.raises(UnavailableError) as caught:
        opened(f"{scheme}://me:secret@{answers(act)}/x").close()
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith((f"No video comes from {scheme}://127.0.0.1", f"{scheme}://127.0.0.1"))


def test_wrong_credentials(tmp_path: Path) -> None:
    port = free_port()
    server = Mjpeg(port, user="Basic bWU6c2VjcmV0")  # me:secret
    try:
        with pytest.raises(UnavailableError, match="that user and password are right") as caught:
            opened(f"http://me:wrong@127.0.0.1:{port}/x")
        assert "wrong" not in str(caught.value)
        with closing(opened(f"http://me:secret@127.0.0.1:{port}/x")) as source:
            frame = next(iter(source))
    finally:
        server.kill()
    assert "secret" not in json.dumps(frame.stream)
