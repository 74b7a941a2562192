"""Webhooks: what changes is sent, to an address and nowhere else, and a dead receiver holds nobody."""

from __future__ import annotations

import base64
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from story import a_face, a_result, a_run, a_story

from edge_fer.address import http_url
from edge_fer.cli import main
from edge_fer.core import Expression, FrameResult
from edge_fer.errors import UsageError
from edge_fer.sinks import delivery, open_sink
from edge_fer.sinks.webhook import WebhookSink

LONG_S = 20.0  # only reached when the code under test hangs


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers as the test says: statuses in turn, in the end 200."""

    def __init__(self, *answers: int, headers: dict[str, str] | None = None) -> None:
        self.got: queue.Queue[tuple[str, dict[str, str], Any]] = queue.Queue()
        self.answers = list(answers)
        self.extra = headers or {}
        super().__init__(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.server.got.put((self.path, headers, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        for name, text in {"Content-Length": "0", **self.server.extra}.items():
            self.send_header(name, text)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = delivery.Delivery.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "close_s", LONG_S)
    monkeypatch.setitem(defaults, "pauses_s", (0.0,))


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    opened: list[Receiver] = []

    def act(*answers: int, **more: Any) -> Receiver:
        opened.append(Receiver(*answers, **more))
        return opened[-1]

    yield act
    for one in opened:
        one.__exit__()


def sent(sink: WebhookSink, *results: FrameResult) -> None:
    for result in results:
        stages_ms = {"detect": 1.0, "preprocess": 0.5, "classify": 2.0, "track": 0.1}
        sink.write(FrameResult(result.frame, result.faces, result.ended, stages_ms))
    sink.close()
    sink.close()


def opened(url: str) -> WebhookSink:
    sink = open_sink(f"webhook:{url}", a_run())
    assert isinstance(sink, WebhookSink)
    return sink


def all_of(receiver: Receiver) -> list[Any]:
    return [receiver.got.get_nowait()[2] for _ in range(receiver.got.qsize())]


def test_what_changes_is_sent_and_what_goes_on_is_not(receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    fear = a_face(2, Expression.FEAR)
    sent(
        opened(receiver.url), *a_story(), a_result(4, fear), a_result(5, fear), a_result(6, a_face(2, Expression.ANGER))
    )
    events = all_of(receiver)
    assert [(one["phase"], one["track"], one["expression"]) for one in events] == [
        ("start", 1, "happiness"),
        ("start", 2, "fear"),
        ("end", 1, "happiness"),
        ("update", 2, "anger"),
        ("end", 2, "anger"),
    ]
    schema = json.loads((Path(delivery.__file__).parents[1] / "event.schema.json").read_text(encoding="utf-8"))
    for event in events:
        jsonschema.Draft202012Validator(schema).validate(event)


def test_how_it_is_sent(receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    url = receiver.url.replace("http://", "http://me:p%40ss@") + "?room=1"
    sent(opened(url), a_story()[1])
    path, headers, _ = receiver.got.get(timeout=LONG_S)
    assert path == "/hook?room=1"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("edge-fer/")
    assert headers["authorization"] == f"Basic {base64.b64encode(b'me:p@ss').decode()}"


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_receiver_that_cannot_now_is_asked_again(
    status: int, receive: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receive(status, status)
    sink = opened(receiver.url)
    sink.write(a_story()[1])
    for _ in range(3):
        receiver.got.get(timeout=LONG_S)
    sink.close()
    (end,) = all_of(receiver)
    assert end["phase"] == "end"
    assert caplog.messages[0].startswith(f"http://127.0.0.1:{receiver.server_address[1]}/...: it answers {status}.")
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    ("status", "says"),
    [(404, "It answers 404 and does not take the event."), (401, "401"), (302, "sends us elsewhere"), (307, "307")],
)
def test_a_receiver_that_refuses_is_not_asked_again(
    status: int, says: str, receive: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receive(status, status, headers={"Location": "file:///etc/passwd"})
    sink = opened(receiver.url)
    sent(sink, a_story()[1])
    assert len(all_of(receiver)) == 2  # the start and the end, each once
    assert len(caplog.messages) == 1 and says in caplog.messages[0]
    (queued,) = sink._run.control.deliveries.values()
    assert queued.counts == {"sent": 0, "dropped": 0, "refused": 2}


def test_what_is_no_web_server_is_tried_again_and_does_not_hold_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        sink = opened(f"http://127.0.0.1:{server.getsockname()[1]}/")
        sink.write(a_story()[1])
        with closing(server.accept()[0]) as client:
            client.sendall(b"220 mail ready\r\n")
        with closing(server.accept()[0]):
            pass
        server.close()
        sink.close()
    # Which of them is a race between its answer and our letter.
    reasons = ("it does not answer as a web server would", "Connection reset", "Broken pipe")
    assert any(reason in caplog.messages[0] for reason in reasons)


def test_secrets_of_the_address_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    sink = opened(f"http://me:secret1@127.0.0.1:{port}/secret2?key=secret3")
    sent(sink, a_story()[1])
    assert "secret" not in caplog.text
    assert list(sink._run.control.deliveries) == [f"http://127.0.0.1:{port}/..."]


def test_two_on_one_host_are_told_apart() -> None:
    run = a_run()
    sinks = [WebhookSink(f"http://127.0.0.1:9/{path}", run) for path in "abc"]
    assert list(run.control.deliveries) == [f"http://127.0.0.1:9/...{number}" for number in ("", " #2", " #3")]
    for sink in sinks:
        sink.close()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "file:///etc/passwd",
        "host",
        "//host/",
        "http://",
        "http:///x",
        "http://host:70000/",
        "http://host:x/",
        "http://[::1/",
        "http://a b/",
        "http://host/\n",
        "javascript:alert(1)",
        "http://" + "a" * 70 + "/",
        "unix:///run/x.sock",
    ],
)
def test_addresses_that_are_none(url: str, call: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="is no address to send to"):
        http_url(url)
    done = call(main, "run", "--camera", "demo", "--output", f"webhook:{url}")
    assert (done.code, done.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://host", (False, "host", 80, "/", "")),
        ("https://Host/a?b=c#d", (True, "host", 443, "/a?b=c", "")),
        ("http://u:p@[::1]:81/ä", (False, "::1", 81, "/%C3%A4", "u:p")),
        ("HTTP://host/%20x", (False, "host", 80, "/%20x", "")),
    ],
)
def test_the_parts_of_an_address(url: str, parts: tuple[Any, ...]) -> None:
    assert http_url(url) == parts
