"""The page as an output: opened from settings, looked at with a browser, scraped by Prometheus."""

from __future__ import annotations

import json
import platform
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import numpy as np
import pytest
import web_client
from browser import Browser, find_browser
from story import a_face, a_result, a_run, a_story
from test_service_metrics import MONITORING, queries
from web_client import ask, connect, events

from edge_fer.address import listening_at
from edge_fer.cli import main
from edge_fer.config import Settings, WebSettings
from edge_fer.control import State
from edge_fer.core import Expression, Face, FrameResult
from edge_fer.errors import ConfigError, EdgeFerError, UnavailableError, UsageError
from edge_fer.events import Run
from edge_fer.sinks import open_sink
from edge_fer.sinks.web import WebSink

Call = Callable[..., Any]
TOKEN = "a token that is long enough"
ROOT = Path(__file__).parents[2]


class Service:
    """A page and the loop that it shows, a frame at a time."""

    def __init__(self, **settings: Any) -> None:
        self.run = Run("pi-kitchen", "compact", "ab" * 32, live=True)
        self.control = self.run.control
        self.seq = 0
        sink = open_sink("web:127.0.0.1:0", self.run, Settings(web=WebSettings(**settings)))
        assert isinstance(sink, WebSink)
        self.sink, self.url = sink, sink.url

    def frame(self, *faces: Face, ended: tuple[Face, ...] = ()) -> None:
        """What the loop does with a frame; nothing while it is paused."""
        self.control.alive_s = self.control.clock()
        if self.control.paused:
            self.control.state = State.PAUSED
            return
        result = a_result(self.seq, *faces, stream="door", ended=ended, size_wh=(640, 480))
        stages_ms = {"detect": 4.0, "preprocess": 0.5, "classify": 2.0, "track": 0.1}
        result = FrameResult(result.frame, result.faces, result.ended, stages_ms)
        self.seq += 1
        self.control.state, self.control.last_frame_s = State.RECOGNIZING, self.control.clock()
        self.sink.write(result)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: object) -> None:
        self.sink.close()


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """Starts a service: ``service(show_video=True)``."""
    opened: list[Service] = []

    def act(**settings: Any) -> Service:
        opened.append(Service(**settings))
        return opened[-1]

    yield act
    for one in opened:
        one.sink.close()


# As an output


def test_what_clients_see_of_the_loop(service: Callable[..., Service], capsys: pytest.CaptureFixture[str]) -> None:
    page = service()
    assert capsys.readouterr().err == f"edge-fer: the page is at {page.url}\n"
    assert ask(f"{page.url}/readyz").status == 503
    page.frame(a_face(1, phase="start"))
    assert ask(f"{page.url}/readyz").body == b"ok\n"
    (face,) = ask(f"{page.url}/api/v1/state").json["faces"]
    assert (face["expression"], face["camera"]) == ("happiness", "door")
    ask(f"{page.url}/api/v1/enabled", "PUT", b'{"enabled":false}', Content_Type="application/json")
    page.frame()
    assert (page.control.paused, ask(f"{page.url}/readyz").body) == (True, b"It is paused.\n")


def test_a_stream_hears_of_every_start_and_end_and_then_of_the_stop(service: Callable[..., Service]) -> None:
    schema = json.loads((ROOT / "edge_fer" / "event.schema.json").read_text(encoding="utf-8"))
    page = service()
    with closing(connect(page.url)) as client:
        stream = events(client)
        assert next(stream)[0] == "status"
        while b'clients{stream="events"} 1' not in ask(f"{page.url}/metrics").body:
            pass
        page.frame(a_face(1, phase="start"))
        page.frame(a_face(1), a_face(2, Expression.FEAR, "start", x=95))
        page.frame(a_face(2, Expression.FEAR), ended=(a_face(1),))
        page.control.state = State.STOPPED
        page.sink.close()
        got = list(stream)
    told = [data for name, data in got if name == "expression"]
    for event in told:
        jsonschema.Draft202012Validator(schema).validate(event)
    assert [(one["phase"], one["track"]) for one in told if one["phase"] != "update"] == [
        ("start", 1),
        ("start", 2),
        ("end", 1),
        ("end", 2),
    ]
    assert got[-1][1]["state"] == "stopped"


def test_closing_is_quick_and_can_be_done_again(service: Callable[..., Service]) -> None:
    page = service()
    with closing(connect(page.url)), closing(connect(page.url)) as stream:
        next(events(stream))
        page.sink.close()
        page.sink.close()
    with pytest.raises(ConnectionRefusedError):
        connect(page.url)


@pytest.mark.parametrize(
    ("where", "host", "port"),
    [
        ("", "127.0.0.1", 8080),
        ("9000", "127.0.0.1", 9000),
        (":9000", "127.0.0.1", 9000),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("kitchen.local:8080", "kitchen.local", 8080),
        ("[::1]:8080", "::1", 8080),
        ("127.0.0.1:0", "127.0.0.1", 0),
    ],
)
def test_where_it_listens(where: str, host: str, port: int) -> None:
    assert listening_at(where) == (host, port)


@pytest.mark.parametrize(
    "where",
    [
        "127.0.0.1",
        "x:y",
        "a:b:80",
        "::1:80",
        "host:70000",
        "host:-1",
        "host:²",
        "h h:80",
        "host:",
        "[]:80",
        "http://a:80",
    ],
)
def test_what_is_no_place_to_listen_is_refused_in_a_sentence(where: str, call: Call) -> None:
    done = call(main, "run", "--camera", "demo", "--output", f"web:{where}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "Write web:127.0.0.1:8080, or web:[::1]:8080." in done.err


def test_a_port_in_use(call: Call) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        done = call(main, "run", "--camera", "demo", "--output", f"web:127.0.0.1:{port}")
    assert (done.code, done.err.count("\n")) == (69, 1)
    assert f"Port {port} of 127.0.0.1 is in use" in done.err


def test_the_network_needs_a_token(call: Call, tmp_path: Path) -> None:
    done = call(main, "run", "--camera", "demo", "--output", "web:0.0.0.0:0")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no token guards it" in done.err
    (tmp_path / "token").write_text(TOKEN)
    sink = open_sink("web:0.0.0.0:0", a_run(), Settings(web=WebSettings(token_file=str(tmp_path / "token"))))
    assert isinstance(sink, WebSink)
    assert sink.url.startswith(f"http://{platform.node()}:")
    port = sink.url.rpartition(":")[2]
    try:
        assert ask(f"http://127.0.0.1:{port}/api/v1/state").status == 401
        assert ask(f"http://127.0.0.1:{port}/api/v1/state", Authorization=f"Bearer {TOKEN}").status == 200
    finally:
        sink.close()


def test_the_token_may_be_a_credential_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web-token").write_text(TOKEN)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with Service() as page:
        assert ask(f"{page.url}/metrics").status == 401
        assert ask(f"{page.url}/metrics", Authorization=f"Bearer {TOKEN}").status == 200


def test_a_token_is_in_no_log(
    service: Callable[..., Service], tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    page = service(token_file=str(tmp_path / "token"))
    with caplog.at_level(0):
        ask(f"{page.url}/?token={quote(TOKEN)}")
        ask(f"{page.url}/metrics", Authorization=f"Bearer {TOKEN}")
        ask(f"{page.url}/login", "POST", f"token={quote(TOKEN)}".encode())
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())


def test_https(service: Callable[..., Service], certificate: Path) -> None:
    page = service(cert_file=str(certificate))
    assert page.url.startswith("https://127.0.0.1:")


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        ("none.pem", "", "Cannot read the certificate"),
        ("empty.pem", "", "no certificate in PEM that fit together"),
        ("cert.pem", "other.pem", "no certificate in PEM that fit together"),
        ("", "key.pem", "set web.cert_file too"),
        ("locked.pem", "", "has a pass phrase"),
    ],
)
def test_bad_certificates(certificate: Path, tmp_path: Path, cert: str, key: str, why: str) -> None:
    for name in ("cert.pem", "key.pem"):
        shutil.copy(certificate.with_name(name), tmp_path / name)
    (tmp_path / "empty.pem").write_text("")
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "other.pem"]
    subprocess.run(command, check=True, capture_output=True)
    command = ["openssl", "pkcs8", "-topk8", "-in", tmp_path / "key.pem", "-passout", "pass:abcd"]
    locked = subprocess.run(command, check=True, capture_output=True).stdout
    (tmp_path / "locked.pem").write_bytes((tmp_path / "cert.pem").read_bytes() + locked)
    settings = WebSettings(cert_file=cert and str(tmp_path / cert), key_file=key and str(tmp_path / key))
    with pytest.raises(ConfigError, match=why):
        open_sink("web:127.0.0.1:0", a_run(), Settings(web=settings))


def test_forged_requests_leave_the_page_as_it_was(service: Callable[..., Service], chance: np.random.Generator) -> None:
    page = service()
    page.frame(a_face(1, phase="start"))
    for _ in range(150):  # so many that nobody is told to ask less often
        with closing(connect(page.url)) as client, suppress(ConnectionError):
            client.sendall(web_client.forged(chance))
            client.shutdown(socket.SHUT_WR)
            client.settimeout(1)
            with suppress(TimeoutError):  # a stream that goes on
                web_client.said(client)
    page.frame(a_face(1))
    assert page.control.frames == 0
    assert not page.control.paused
    assert b'status="500"' not in ask(f"{page.url}/metrics").body


def test_the_whole_service_is_stopped_under_load_and_exits_well() -> None:
    command = [
        sys.executable,
        "-m",
        "edge_fer",
        "run",
        "--camera",
        "demo:loop",
        "--output",
        "web:127.0.0.1:0",
        "--show-video",
    ]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stderr
    url = child.stderr.readline().split()[-1]
    stop = threading.Event()

    def watch(target: str) -> None:
        with suppress(OSError), closing(connect(url)) as client:
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            while not stop.is_set() and client.recv(1 << 16):
                pass

    targets = ["/api/v1/events"] * 10 + ["/stream.mjpg"] * 5
    while b"recognizing" not in ask(f"{url}/api/v1/state").body:
        stop.wait(0.05)
    threads = [threading.Thread(target=watch, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    while 'edge_fer_http_clients{stream="video"} 5' not in ask(f"{url}/metrics").body.decode():
        stop.wait(0.05)
    child.terminate()
    rest = child.communicate(timeout=30)[1]
    stop.set()
    for thread in threads:
        thread.join()
    assert (child.returncode, rest) == (0, "")


def test_a_run_without_the_page_loads_none_of_it(tmp_path: Path) -> None:
    script = (
        "import sys; from edge_fer.cli import main; "
        f"main(['replay', '--fast', {str(tmp_path / 'a')!r}, '--output', 'jsonl:-']); "
        "print([m for m in ('h11', 'asyncio', 'ssl', 'http.client') if m in sys.modules])"
    )
    (tmp_path / "a").write_text("")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# In a browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """Opens a browser: ``browser(width=390)``."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    opened: list[Browser] = []

    def act(**settings: Any) -> Browser:
        opened.append(Browser(program, tmp_path / f"profile-{len(opened)}", **settings))
        return opened[-1]

    yield act
    for one in opened:
        one.__exit__(None, None, None)


class Loop:
    """Shows the page a face again and again, as the loop does."""

    def __init__(self, page: Service) -> None:
        self.expression = Expression.HAPPINESS
        self.there = True
        self._page = page
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        was = False
        while not self._stop.wait(0.05):
            there = self.there  # the test may change it at any time
            face = a_face(1, self.expression, "update" if was else "start", x=200)
            self._page.frame(*([face] if there else []), ended=(face,) if was and not there else ())
            was = there and not self._page.control.paused

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


STATE = "document.getElementById('state').dataset.state"
EXPRESSION = "document.querySelector('.face:not(.gone) .expression')?.textContent"


def test_the_page_in_a_browser(service: Callable[..., Service], browser: Callable[..., Browser]) -> None:
    page, chromium = service(), browser()
    with Loop(page) as loop:
        chromium.open(page.url)
        chromium.wait(EXPRESSION, lambda text: text == "happiness")
        chromium.wait(STATE, lambda state: state == "recognizing")
        assert chromium.evaluate("document.title") == "pi-kitchen · edge-fer"
        loop.expression = Expression.FEAR
        chromium.wait(EXPRESSION, lambda text: text == "fear")
        box = chromium.evaluate("JSON.stringify(document.querySelector('.box').style.left)")
        assert json.loads(box) == "31.25%"
        assert "fear 79 %" in chromium.evaluate("document.querySelector('.box').textContent")
        chromium.wait("document.querySelector('.rate').textContent", lambda text: "fps" in text)
        assert chromium.evaluate("document.querySelectorAll('.bars li').length") == 7
        assert chromium.wait("document.querySelector('canvas').getAttribute('aria-label')").startswith(
            "The last minute"
        )
        tiles = chromium.wait("document.getElementById('tiles').textContent")
        assert all(name in tiles for name in ("frames per second", "memory", "running for"))
        assert chromium.evaluate("document.querySelector('.crop').hidden && !document.querySelector('.view img')")
        loop.there = False
        chromium.wait("document.getElementById('nobody').hidden", lambda hidden: hidden is False)
        assert chromium.evaluate("document.querySelectorAll('.box').length") == 0
    assert {url.split("/")[2] for url in chromium.requests} == {page.url.split("/")[2]}  # nothing leaves the origin
    assert chromium.complaints == []


def test_the_page_by_keyboard_alone(service: Callable[..., Service], browser: Callable[..., Browser]) -> None:
    page, chromium = service(), browser()
    focus = "document.activeElement.id || document.activeElement.textContent.trim()"
    with Loop(page):
        chromium.open(page.url)
        chromium.wait(STATE, lambda state: state == "recognizing")
        order = []
        for _ in range(5):
            chromium.press("Tab")
            order.append(chromium.evaluate(focus))
        assert order == ["Skip to the faces", "switch", "state", "metrics", "API"]
        chromium.evaluate("document.getElementById('switch').focus()")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        chromium.press(" ")
        chromium.wait(STATE, lambda state: state == "paused")
        assert page.control.paused
        assert chromium.evaluate(outline) == "solid"
        assert chromium.evaluate("document.getElementById('switch').getAttribute('aria-checked')") == "false"
        assert "the camera is closed" in chromium.evaluate("document.querySelector('.veil').textContent")
        chromium.press("p")
        chromium.wait(STATE, lambda state: state == "recognizing")
        chromium.wait(EXPRESSION, lambda text: text == "happiness")
    assert not page.control.paused


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_and_can_be_read(
    service: Callable[..., Service], browser: Callable[..., Browser], width: int, scheme: str
) -> None:
    page, chromium = service(), browser(width=width, height=844, scheme=scheme)
    with Loop(page):
        chromium.open(page.url)
        chromium.wait(EXPRESSION)
        chromium.wait("document.getElementById('tiles').children.length")
        assert chromium.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        assert chromium.evaluate("document.getElementById('switch').getBoundingClientRect().height") >= 44
        assert chromium.evaluate(CONTRAST) == []


CONTRAST = """
(() => {
  // WCAG 2: contrast of text with what it stands on, 4.5 at least.
  const parsed = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parsed(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.offsetParent) continue;
    const [a, b] = [light(parsed(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${element.className || element.tagName} ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
})()
"""


def test_the_page_with_pictures(service: Callable[..., Service], browser: Callable[..., Browser]) -> None:
    page, chromium = service(show_video=True), browser()
    with Loop(page):
        chromium.open(page.url)
        chromium.wait("document.querySelector('.view img')?.naturalWidth", lambda width: width == 640)
    assert chromium.complaints == [] or all("crop.png" in one or "404" in one for one in chromium.complaints)


def test_the_page_says_that_the_device_is_gone(
    service: Callable[..., Service], browser: Callable[..., Browser]
) -> None:
    page, chromium = service(), browser()
    with Loop(page):
        chromium.open(page.url)
        chromium.wait(EXPRESSION)
    page.sink._server.close()  # as where the power goes: it has told nobody
    chromium.wait(STATE, lambda state: state == "offline")
    assert chromium.evaluate("document.getElementById('switch').disabled")
    assert "Nothing is heard" in chromium.evaluate("document.querySelector('.veil').textContent")


def test_logging_in(service: Callable[..., Service], browser: Callable[..., Browser], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    page, chromium = service(token_file=str(tmp_path / "token")), browser(width=390)
    with Loop(page):
        chromium.open(page.url)
        chromium.wait("document.activeElement.id", lambda name: name == "token")
        chromium.type("a wrong one")
        chromium.press("Enter")
        chromium.wait("document.querySelector('.error')?.textContent", lambda text: "not the token" in (text or ""))
        chromium.wait("document.activeElement.id", lambda name: name == "token")
        chromium.type(TOKEN)
        chromium.press("Enter")
        chromium.wait(EXPRESSION)
        assert chromium.evaluate("document.cookie") == ""  # no script can read it
        assert TOKEN not in chromium.evaluate("location.href")
    assert not any("token=" in url or quote(TOKEN) in url for url in chromium.requests)


# Scraped


def test_prometheus_answers_every_query_of_dashboard_and_alerts(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    if not shutil.which("prometheus"):
        pytest.skip("no Prometheus: apt-get install prometheus")
    page = service()
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    shutil.copy(MONITORING / "prometheus-rules.yml", tmp_path)
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nrule_files: [prometheus-rules.yml]\nscrape_configs:\n"
        f"  - job_name: edge-fer\n    static_configs: [{{targets: ['{page.url.removeprefix('http://')}']}}]\n"
    )
    command = [
        "prometheus",
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    api = f"http://127.0.0.1:{port}/api/v1"

    def found(query: str) -> list[Any]:
        answer = ask(f"{api}/query?query={quote(query)}").json
        assert answer["status"] == "success", (query, answer)
        return list(answer["data"]["result"])

    try:
        with Loop(page):
            until_s = time.monotonic() + web_client.LONG_S
            while True:  # it takes two scrapes until there is a rate
                with suppress(ConnectionError):
                    if found("rate(edge_fer_http_requests_total[10s]) > 0"):
                        break
                assert time.monotonic() < until_s and child.poll() is None
                threading.Event().wait(0.1)
            rules = ask(f"{api}/rules").json["data"]["groups"]
            assert rules and all(rule["health"] in ("ok", "unknown") for group in rules for rule in group["rules"])
            empty = set()
            for where, query in queries():
                asked = re.sub(r"label_values\((\w+), \w+\)", r"\1", query)
                asked = asked.replace("$__rate_interval", "10s").replace("$instance", ".*")
                if not found(asked) and not where.startswith("EdgeFer"):
                    empty.add(where)
    finally:
        child.terminate()
        child.wait(20)
    board = {"Temperature", "Temperature and throttling"}
    others = {
        "Outputs in the network",
        "Cameras lost",
        "Frames a second",
        "From capture to result",
        "From capture to result, 95 %",
    }
    assert empty <= board | others  # this machine and this run have none of these


# Errors have their codes


@pytest.mark.parametrize(("error", "code"), [(UsageError, 2), (UnavailableError, 69), (ConfigError, 78)])
def test_exit_codes(error: type[EdgeFerError], code: int) -> None:
    assert error.exit_code == code


def test_the_story_reaches_the_page(service: Callable[..., Service]) -> None:
    page = service()
    for result in a_story():
        page.sink.write(result)
    assert b"edge_fer_faces_detected_total 2" in ask(f"{page.url}/metrics").body
