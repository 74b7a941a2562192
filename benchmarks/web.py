"""The web page under load: what it costs while nobody looks, while many do, and what bad clients can do to it.

    make web-load                                              ten minutes of load, 10,000 forged requests
    python benchmarks/web.py --seconds 30 --requests 2000      a shorter one

The camera is a pipe of drawn faces, 640 x 480, fifteen a second. Each row is a service of its own. The exit code is 1
where a promise is broken: 100 MB, 10 % of a run alone, a loop that slows down by 10 %, a stop that takes five seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from web_client import ask, forged  # noqa: E402

from edge_fer.sources.demo import DemoSource  # noqa: E402

HZ = 15
WARM_S = 6
MOST_MB, MOST_FIRST_S, MOST_MORE, MOST_SLOWER, MOST_STOP_S = 100.0, 1.0, 0.10, 0.10, 5.0
TICKS = os.sysconf("SC_CLK_TCK")


class Camera:
    """Writes frames into a named pipe at their pace, until the other side leaves."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self._stop = Event()
        self._thread = Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        color = np.full(640 * 480 // 2, 128, np.uint8).tobytes()
        frames = [frame.gray.tobytes() + color for frame in DemoSource()]
        with suppress(BrokenPipeError), self._path.open("wb", buffering=0) as pipe:
            number, due_s = 0, time.monotonic()
            while not self._stop.wait(max(0.0, due_s - time.monotonic())):
                pipe.write(frames[number % len(frames)])
                number, due_s = number + 1, due_s + 1 / HZ

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


class Service:
    """``edge-fer run`` in a process of its own."""

    def __init__(self, folder: Path, camera: Path, *outputs: str) -> None:
        command = [sys.executable, "-m", "edge_fer", "run", "--camera", f"pipe:640x480@{HZ}:{camera}", *outputs]
        self._err = (folder / "stderr").open("w+")
        self.child = subprocess.Popen(command, cwd=ROOT, stderr=self._err, stdout=subprocess.DEVNULL)
        self.url = ""

    def wait_for_url(self) -> None:
        while not self.url:
            time.sleep(0.1)
            found = re.search(r"http://\S+", Path(self._err.name).read_text())
            self.url = found[0] if found else ""
            assert self.child.poll() is None, Path(self._err.name).read_text()
        while b"recognizing" not in ask(f"{self.url}/api/v1/state").body:
            time.sleep(0.2)

    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mb(self) -> float:
        """Memory now."""
        return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def frames(self) -> int:
        """Frames that it has looked at."""
        (count,) = re.findall(rb"edge_fer_frames_total\{[^}]*\} (\d+)", ask(f"{self.url}/metrics").body)
        return int(count)

    def stop(self) -> tuple[float, int]:
        """Ask it to end; returns how long it took, and its exit code."""
        begun_s = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(30)
        return time.monotonic() - begun_s, code

    def errors(self) -> str:
        """What it complained of."""
        return Path(self._err.name).read_text()


@contextmanager
def running(*outputs: str) -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        camera = Camera(folder / "camera")
        service = Service(folder, folder / "camera", *outputs)
        try:
            yield service
        finally:
            if service.child.poll() is None:
                service.child.kill()
                service.child.wait()
            camera.close()


class Crowd:
    """Many clients that read what comes, in one thread."""

    def __init__(self, url: str, targets: list[str]) -> None:
        self.received = 0
        self._selector = selectors.DefaultSelector()
        self._stop = Event()
        host, port = url.removeprefix("http://").split(":")
        self._clients = [socket.create_connection((host, int(port)), 10) for _ in targets]
        for client, target in zip(self._clients, targets, strict=True):
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_READ)
        self.alive = len(targets)
        self._thread = Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    data = key.fileobj.recv(1 << 18)
                except OSError:
                    data = b""
                self.received += len(data)
                if not data:
                    self.alive -= 1
                    self._selector.unregister(key.fileobj)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for client in self._clients:
            client.close()


def trickle(url: str, stop: Event) -> None:
    """A client that never finishes its request: another byte each second."""
    host, port = url.removeprefix("http://").split(":")
    while not stop.is_set():
        with suppress(OSError), closing(socket.create_connection((host, int(port)), 5)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nX: ")
            while not stop.wait(1):
                client.sendall(b"y")


def fuzz(service: Service, requests: int) -> None:
    """Requests that no browser sends."""
    host, port = service.url.removeprefix("http://").split(":")
    for number in range(requests):
        request = forged(np.random.default_rng(number))
        with suppress(OSError), closing(socket.create_connection((host, int(port)), 5)) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            client.settimeout(0.05 if b"/events" in request or b"stream" in request else 5)
            while client.recv(1 << 16):
                pass


def row(what: str, value: str, limit: str, good: bool) -> bool:
    print(f"| {what} | {value} | {limit} | {'yes' if good else 'NO'} |", flush=True)
    return good


def nobody_looks(seconds: float) -> list[bool]:
    """A run alone and one with the page side by side: what else runs on this machine slows down both."""
    served_too = ["--output", "jsonl:/dev/null", "--output", "web:127.0.0.1:0"]
    with running("--output", "jsonl:/dev/null") as alone, running(*served_too) as served:
        served.wait_for_url()
        first_s = served.cpu_s()
        time.sleep(WARM_S)
        both = (alone, served)
        cpu_s, begun_s = [one.cpu_s() for one in both], time.monotonic()
        time.sleep(seconds)
        took_s = time.monotonic() - begun_s
        cores = [(one.cpu_s() - before_s) / took_s for one, before_s in zip(both, cpu_s, strict=True)]
        memory_mb = served.rss_mb()
        print(f"| alone | {alone.rss_mb():.1f} MB, {cores[0]:.3f} cores | | |")
        alone.stop()
        served.stop()
    more = cores[1] / cores[0] - 1
    return [
        row("with the page, nobody looks: memory", f"{memory_mb:.1f} MB", f"{MOST_MB:g} MB", memory_mb <= MOST_MB),
        row(
            "... processor time until the first result",
            f"{first_s:.2f} s",
            f"{MOST_FIRST_S:g} s",
            first_s <= MOST_FIRST_S,
        ),
        row("... processor", f"{cores[1]:.3f} cores, {more:+.1%}", f"+{MOST_MORE:.0%}", more <= MOST_MORE),
    ]


def many_look(quiet_s: float, seconds: float) -> list[bool]:
    """Streams of events and video for all who are allowed, and clients that never finish a request."""
    with running("--output", "web:127.0.0.1:0", "--show-video") as service, ExitStack() as stack:
        service.wait_for_url()
        time.sleep(WARM_S)
        before_hz = rate_hz(service, quiet_s)
        crowd = Crowd(service.url, ["/api/v1/events"] * 50 + ["/stream.mjpg"] * 20)
        stack.callback(crowd.close)
        stop = Event()
        slow = [Thread(target=trickle, args=(service.url, stop)) for _ in range(20)]
        for thread in slow:
            thread.start()
        time.sleep(WARM_S)
        early_mb = service.rss_mb()
        during_hz = rate_hz(service, seconds)
        late_mb, alive, received_mb = service.rss_mb(), crowd.alive, crowd.received / 1e6
        took_s, code = service.stop()
        stop.set()
        for thread in slow:
            thread.join()
    slower = 1 - during_hz / before_hz
    memory = f"... memory after {WARM_S} s and after {seconds:.0f} s"
    print(f"| 70 who watch receive | {received_mb / (seconds + WARM_S):.1f} MB/s | | |")
    return [
        row("50 streams of events, 20 of video, 20 slow-loris: who is left", f"{alive}", "70", alive == 70),
        row("... loop", f"{before_hz:.2f}, then {during_hz:.2f} Hz", f"-{MOST_SLOWER:.0%}", slower < MOST_SLOWER),
        row(memory, f"{early_mb:.1f} MB, {late_mb:.1f} MB", "+10 MB", late_mb < early_mb + 10),
        row("... SIGTERM ends it", f"{took_s:.2f} s, code {code}", "5 s, code 0", took_s < MOST_STOP_S and code == 0),
    ]


def rate_hz(service: Service, seconds: float) -> float:
    """Frames a second that the loop looks at."""
    frames, begun_s = service.frames(), time.monotonic()
    time.sleep(seconds)
    return (service.frames() - frames) / (time.monotonic() - begun_s)


def bad_clients(requests: int) -> list[bool]:
    """Forged requests, one after another."""
    with running("--output", "web:127.0.0.1:0", "--show-video") as service:
        service.wait_for_url()
        early_mb = service.rss_mb()
        fuzz(service, requests)
        time.sleep(2)
        metrics = ask(f"{service.url}/metrics").body.decode()
        healthy = ask(f"{service.url}/readyz").status == 200 and service.child.poll() is None
        grown_mb = service.rss_mb() - early_mb
        _, code = service.stop()
        lines = len(service.errors().splitlines()) - 1  # but for the one that says where it listens
    answers = dict(re.findall(r'http_requests_total\{status="(\d+)"\} (\d+)', metrics))
    said = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
    print(f"| {requests} forged requests: answers | {said} | | |")
    return [
        row("... the service is well", f"{grown_mb:+.1f} MB", "ready, no 500", healthy and "500" not in answers),
        row("... lines in the log", f"{lines}, code {code}", "0, code 0", lines == 0 and code == 0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="of load (default: 600)")
    parser.add_argument("--requests", type=int, default=10_000, help="forged ones (default: 10000)")
    args = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| what | measured | limit | kept |\n|---|---|---|---|", flush=True)
    quiet_s = min(60.0, max(10.0, args.seconds / 10))
    good = [*nobody_looks(quiet_s), *many_look(quiet_s, args.seconds), *bad_clients(args.requests)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
