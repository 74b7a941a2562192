"""No picture leaves the process unless somebody asks: proved on a whole service, by its system calls and packets.

The camera sees a picture with a marker, a band of noise that nothing else holds. strace writes down every byte that
the service gives to the kernel, for files and sockets alike, and a packet socket all that passes the loopback. Neither
may hold a piece of the band's pixels, or the beginning of any JPEG, PNG, WebP or GIF; no file may be opened to write.
The same search finds the picture as soon as it is asked for: so it would have found it before.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from mosquitto import LONG_S, Listener, Mosquitto, free_port

from edge_fer.core import Image
from edge_fer.sources.camera import FULL_RANGE

pytest.importorskip("paho.mqtt")
pytest.importorskip("h11")

W, H, BAND = 640, 480, 32
PIECE = 24
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"WEBPVP8", b"GIF89a", base64.b64encode(b"\xff\xd8\xff"), b"iVBORw0KGgo")
CALLS = "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,open,openat,openat2,creat,sendfile,splice"


def marked(scene: Image) -> Image:
    """The scene as a camera's limited-range gray, with the marker above it."""
    picture = (scene.astype(np.float32) * 219 / 255 + 16).round().astype(np.uint8)
    picture[:BAND] = np.random.default_rng(26).integers(16, 236, (BAND, W), dtype=np.uint8)
    return picture


def pieces(picture: Image) -> set[bytes]:
    """Parts of the band, as it comes and as the recognizer has it. Twice as much in a row holds at least one whole."""
    found = set()
    for band in (picture[:BAND], cv2.LUT(picture[:BAND], FULL_RANGE)):
        for row in band:
            data = row.tobytes()
            found |= {data[at : at + PIECE] for at in range(0, W - PIECE + 1, PIECE)}
    return found


class Camera:
    """A pipe into which the picture is written, again and again, as rpicam-vid would."""

    def __init__(self, path: Path, picture: Image) -> None:
        os.mkfifo(path)
        self._ended = threading.Event()
        planes = picture.tobytes() + b"\x80" * (W * H // 2)
        self._thread = threading.Thread(target=self._write, args=(path, planes), daemon=True)
        self._thread.start()

    def _write(self, path: Path, planes: bytes) -> None:
        with suppress(OSError), path.open("wb", buffering=0) as pipe:
            while not self._ended.wait(1 / 15):
                pipe.write(planes)

    def close(self) -> None:
        self._ended.set()


class Loopback:
    """All that passes the loopback to or from some ports, by direction."""

    def __init__(self, *ports: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        except PermissionError:
            pytest.skip("packets are seen by root alone")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._ports = set(ports)
        self._streams: dict[bytes, bytearray] = defaultdict(bytearray)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                packet, (_, _, kind, *_) = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                continue
            if kind != socket.PACKET_OUTGOING and packet[12:14] == b"\x08\x00" and packet[23] == 6:  # once; IPv4; TCP
                ip = packet[14 : 14 + struct.unpack_from(">H", packet, 16)[0]]
                tcp = ip[(ip[0] & 15) * 4 :]
                if self._ports & set(struct.unpack_from(">HH", tcp)):
                    self._streams[ip[12:20] + tcp[:4]] += tcp[(tcp[12] >> 4) * 4 :]

    def close(self) -> list[bytes]:
        self._ended.set()
        self._thread.join(LONG_S)
        self._socket.close()
        return [bytes(stream) for stream in self._streams.values()]


def written(trace: Path) -> tuple[list[bytes], set[str]]:
    """What went out by each file descriptor, and the names of the files that were opened for writing."""
    streams: dict[str, bytearray] = defaultdict(bytearray)
    opened = set()
    for line in trace.read_text().splitlines():
        call, _, rest = line.partition(" ")[2].strip().partition("(")
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', rest)]
        if call in ("open", "openat", "openat2", "creat"):
            if re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)", rest) or call == "creat":
                opened.add(texts[0].decode())
        else:
            assert call not in ("sendfile", "splice"), "these hand on what is not seen here"
            streams[rest.partition(",")[0]] += b"".join(texts)
    return [bytes(stream) for stream in streams.values()], opened


def pictures_in(streams: list[bytes], band: Image) -> int:
    """How many JPEGs show the band."""
    count = 0
    for stream in streams:
        for found in re.finditer(rb"\xff\xd8\xff", stream):
            image = cv2.imdecode(np.frombuffer(stream[found.start() :], np.uint8), cv2.IMREAD_GRAYSCALE)
            if image is not None and image.shape == (H, W):
                count += bool(np.corrcoef(image[:BAND].ravel(), band.ravel())[0, 1] > 0.5)
    return count


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
    with closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        stream = answer.getheader("Content-Type", "").startswith(("text/event-stream", "multipart/"))
        return answer.status, answer.read(200 if stream else None)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    there = Mosquitto(tmp_path)
    yield there
    there.kill()


@pytest.mark.parametrize("asked_for", [False, True])
def test_no_picture_leaves_unless_it_is_asked_for(
    broker: Mosquitto, scene: Image, tmp_path: Path, asked_for: bool
) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not here: apt-get install strace")
    picture = marked(scene)
    (state := tmp_path / "state").mkdir()
    port = free_port()
    outputs = [f"mqtt://127.0.0.1:{broker.port}", f"web:127.0.0.1:{port}", "terminal"]
    outputs += [f"pictures:{state}/pictures"] if asked_for else []
    command = ["strace", "-f", "-xx", "-s", "20000000", "-e", f"trace={CALLS}", "-o", str(tmp_path / "trace")]
    command += [
        sys.executable,
        "-m",
        "edge_fer",
        "run",
        "--name",
        "pi",
        "--camera",
        f"pipe:{W}x{H}@15:{tmp_path}/camera",
    ]
    command += [part for output in outputs for part in ("--output", output)]
    command += ["--show-video"] if asked_for else []
    environ = {
        **os.environ,
        "NOTIFY_SOCKET": str(tmp_path / "nobody"),
        "STATE_DIRECTORY": str(state),
        "PYTHONDONTWRITEBYTECODE": "1",  # as in an environment that only root may write to
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    # Its first start on a machine tries the libraries, and remembers that.
    subprocess.run([sys.executable, "-m", "edge_fer", "models", "verify"], env=environ, check=True, capture_output=True)
    loopback = Loopback(broker.port, port)
    with closing(Camera(tmp_path / "camera", picture)), closing(Listener(broker.port)) as listener:
        service = subprocess.Popen(command, env=environ, cwd=state, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            listener.wait_for(lambda one: one.topic == "edge-fer/pi/state" and '"faces":2' in one.payload)
            answers = {
                path: get(port, path) for path in ("/", "/api/v1/state", "/metrics", "/readyz", "/api/v1/events")
            }
            assert {status for status, _ in answers.values()} == {200}
            pictures = [get(port, path) for path in ("/snapshot.jpg", "/stream.mjpg")]
            children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
            said = service.communicate(timeout=LONG_S)[0]
            assert service.returncode == 0, said
        finally:
            service.kill()
            service.communicate()
    packets = loopback.close()
    calls, opened = written(tmp_path / "trace")
    assert any(b"/api/v1/state" in stream for stream in packets), "the packets were seen"
    assert any(b'"phase":"start"' in stream for stream in calls), "the calls were seen"
    assert any(b'"phase":"start"' in stream for stream in packets)
    known = pieces(picture)
    for stream in [*calls, *packets]:
        assert not [piece for piece in known if piece in stream], "pixels as they are go nowhere"
    opened = {name for name in opened if not name.startswith(("/dev/", "/proc/"))}
    band = cv2.LUT(picture[:BAND], FULL_RANGE).astype(np.uint8)
    if asked_for:
        assert [status for status, _ in pictures] == [200, 200]
        assert pictures_in(packets, band) >= 1, "the search finds what is there"
        assert pictures_in(calls, band) >= 3
        assert all(name.startswith(f"{state}/pictures/") for name in opened), opened
    else:
        assert all(status >= 400 for status, _ in pictures)
        for stream in [*calls, *packets]:
            assert [magic for magic in MAGIC if magic in stream] == []
        assert opened == set()
        # What says that the libraries were tried, before the trace began.
        assert [path.name for path in state.iterdir()] == ["libraries"]
